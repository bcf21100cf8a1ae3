// On a notebook of JupyterLite: says that Python is loading, until the kernel has first answered.
// Cells that are run meanwhile wait in the kernel's line, and are run in order.
(() => {
  const note = document.createElement('div');
  note.id = 'loading-python';
  note.setAttribute('role', 'status');
  note.style.cssText = 'position:fixed;bottom:12px;left:50%;transform:translateX(-50%);z-index:900;padding:8px 16px;' +
    'max-width:90vw;border:1px solid #1f5f8b;border-radius:6px;background:#fff;color:#111;font:15px sans-serif';
  document.body.append(note);
  const state = () => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status;
  let asked = false;  // the indicator says `idle` before there is a kernel, and `unknown` while one is made
  const timer = setInterval(() => {
    const now = state();
    if (!now) return;
    asked ||= now !== 'idle';
    note.textContent = 'Loading Python. Cells that you run now are run when it is here.';
    if (!asked || !['idle', 'busy'].includes(now)) return;
    clearInterval(timer);
    note.textContent = 'Python is ready.';
    setTimeout(() => note.remove(), 2000);
  }, 200);
})();
