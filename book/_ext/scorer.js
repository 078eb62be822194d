// How search ranks what it finds: Sphinx's own numbers, but first comes a title that holds all that was looked for.
// Not in _static, whose scripts are loaded on every page.
var Scorer = {
  score: ([, title, , , score]) => {
    const sought = (new URLSearchParams(location.search).get('q') ?? '').trim().toLowerCase();
    return sought && title.toLowerCase().includes(sought) ? score + 100 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
