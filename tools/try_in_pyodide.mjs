// Run notebooks in Pyodide: node try_in_pyodide.mjs FOLDER, with a path on each line of standard input.
// Prints for each the sources of the cells that failed, as a line of JSON; says why on standard error.
// Each has a Pyodide of its own. In one process WebAssembly is compiled once for all of them.
import {readFileSync} from 'node:fs';
import {resolve, sep} from 'node:path';
import {createInterface} from 'node:readline';
import {pathToFileURL} from 'node:url';

const folder = resolve(process.argv[2]) + sep;
const {loadPyodide} = await import(pathToFileURL(folder + 'pyodide.mjs'));

async function failures(notebook) {
  const python = await loadPyodide({indexURL: folder, stdout: () => {}, stderr: () => {}});
  await python.runPythonAsync("import os; os.environ['REDACTION_SERDE_STRICT'] = '1'");  // checks of lessons fail
  const failed = [];
  for (const cell of notebook.cells) {
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
  return failed;
}

for await (const path of createInterface({input: process.stdin})) {
  console.log(JSON.stringify(await failures(JSON.parse(readFileSync(path)))));
}
