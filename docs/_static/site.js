/* Two pictures side by side become one with a slider: `<div class="before-after"><figure><img><figcaption>…`. Without this file they stay side by side. */
for (const box of document.querySelectorAll('.before-after')) {
  const [before, after] = box.querySelectorAll('img');
  const captions = [...box.querySelectorAll('figcaption')].map(c => c.textContent);
  if (!before || !after) continue;
  const stage = document.createElement('div');
  stage.className = 'stage';
  stage.append(before, after);
  const range = Object.assign(document.createElement('input'), {type: 'range', min: 0, max: 100, value: 50});
  range.setAttribute('aria-label', `Share of the picture that shows ${captions[0]}; the rest shows ${captions[1]}`);
  const move = () => { box.style.setProperty('--at', `${range.value}%`); range.setAttribute('aria-valuetext', `${range.value} % ${captions[0]}`) };
  range.addEventListener('input', move);
  const ends = document.createElement('div');
  ends.className = 'ends';
  for (const text of captions) ends.append(Object.assign(document.createElement('span'), {textContent: text}));
  box.removeAttribute('style');
  box.replaceChildren(stage, range, ends);
  box.classList.add('slides');
  move();
}
/* What scrolls sideways can be scrolled with the keyboard. */
const reachable = () => { for (const e of document.querySelectorAll('.bd-article pre, .output.text_html, .pst-scrollable-table-container'))
  if (e.scrollWidth > e.clientWidth + 1) e.tabIndex = 0 };
reachable();
addEventListener('resize', reachable);
