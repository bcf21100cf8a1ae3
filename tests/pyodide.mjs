// Run the code cells of notebooks in Pyodide, as the lessons in the browser do: node pyodide.mjs FOLDER NOTEBOOK…
import {readFileSync} from 'node:fs';
import {resolve, sep} from 'node:path';
import {pathToFileURL} from 'node:url';

const folder = resolve(process.argv[2]) + sep;
const {loadPyodide} = await import(pathToFileURL(folder + 'pyodide.mjs'));
let failed = 0;
for (const path of process.argv.slice(3)) {
  const python = await loadPyodide({indexURL: folder, stdout: () => {}, stderr: () => {}, packages: ['ipython']});
  const cells = JSON.parse(readFileSync(path)).cells.filter(c => c.cell_type === 'code').map(c => [c.source].flat().join(''));
  for (const source of cells) {
    try {
      await python.loadPackagesFromImports(source, {messageCallback: () => {}});
      await python.runPythonAsync(source);
    } catch (error) {
      failed++;
      console.log(`${path}\n${source}\n${String(error.message).slice(-1500)}\n`);
    }
  }
  console.log(`${path}: ${cells.length} cells`);
}
process.exitCode = failed ? 1 : 0;
