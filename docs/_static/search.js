/* The search page. Sphinx's own looks through all words of a page, its menus among them, and knows nothing of parameters. */
const FURNITURE = 'script, style, nav, button, summary, details.hide, .headerlink, .viewcode-link, .run-it, .gp, .linenos';
const LESSON = /^(index|howto|cards|glossary|learn|compare)(\/|$)/;

/* What a page says, without what stands around it; of a heading or an API entry, what stands below it. */
Search.htmlToText = (html, anchor) => {
  const article = new DOMParser().parseFromString(html, 'text/html').querySelector('article.bd-article');
  if (!article) return '';
  for (const unwanted of article.querySelectorAll(FURNITURE)) unwanted.remove();
  for (const block of article.querySelectorAll('h1, h2, h3, p, li, dt, dd, td, th, pre')) block.append(' ');
  const found = anchor ? article.querySelector(`[id="${CSS.escape(anchor.slice(1))}"]`) : null;
  const shown = found?.matches('dt') ? found.parentElement : found;
  return (shown || article).textContent.replace(/\s+/g, ' ').trim();
};

/* Names of the library, and the parameters of its functions: PARAMETERS has for each name the functions that take it. */
const symbols = Search.performObjectSearch;
Search.performObjectSearch = (word, words) => {
  const others = [...words].filter(one => one !== word);
  const taken = (Object.hasOwn(PARAMETERS, word) ? PARAMETERS[word] : [])
    .filter(([, owner, , says]) => others.every(one => `${owner} ${says}`.toLowerCase().includes(one)))
    .map(([page, owner, anchor, says, offered]) => [page, `${word}, of ${owner}`, `#${anchor}`, says, offered ? 100 : 99, page, SearchResultKind.object]);
  const named = symbols(word, words);
  for (const result of named) result[4] = result[1].toLowerCase().split('.').at(-1) === word ? 101 : 0;
  return [...named, ...taken];
};

/* Lessons first, then names that are just what was asked for, then the rest of the pages, then names that only contain it. */
Scorer.score = ([page, , , , score, , kind]) => kind === SearchResultKind.object ? score : score + (LESSON.test(page) ? 500 : 1);
