// Run the code cells of a notebook in Pyodide: node try_in_pyodide.mjs FOLDER NOTEBOOK
// Prints the sources of the cells that failed, as JSON; says why on standard error.
import {readFileSync} from 'node:fs';
import {resolve, sep} from 'node:path';
import {pathToFileURL} from 'node:url';

const folder = resolve(process.argv[2]) + sep;
const {loadPyodide} = await import(pathToFileURL(folder + 'pyodide.mjs'));
const python = await loadPyodide({indexURL: folder, stdout: () => {}, stderr: () => {}});
await python.runPythonAsync("import os; os.environ['REDACTION_SERDE_STRICT'] = '1'");  // checks of lessons fail
const failed = [];
for (const cell of JSON.parse(readFileSync(process.argv[3])).cells) {
  if (cell.cell_type !== 'code') continue;
  const source = [cell.source].flat().join('');
  try {
    await python.loadPackagesFromImports(source, {messageCallback: () => {}});
    await python.runPythonAsync(source);
  } catch (error) {
    failed.push(source);
    console.error(`${source}\n${String(error.message).slice(-800)}\n`);
  }
}
console.log(JSON.stringify(failed));
process.exitCode = failed.length ? 1 : 0;
