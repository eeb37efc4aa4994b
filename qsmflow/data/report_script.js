'use strict';
document.querySelectorAll('table.sort').forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll('thead th').forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      table.querySelectorAll('thead th').forEach((h) => h.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === '' || y === '') return (x === '') - (y === '');
        const numeric = !isNaN(x) && !isNaN(y);
        const order = numeric ? x - y : x.localeCompare(y, undefined, {numeric: true});
        return up ? order : -order;
      });
      body.append(...rows);
    };
    head.addEventListener('click', sort);
    head.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); sort(); }
    });
  });
});
const dialog = document.querySelector('dialog');
document.querySelectorAll('figure:not(.chart) img').forEach((image) => {
  image.addEventListener('click', () => {
    dialog.replaceChildren(image.cloneNode());
    dialog.showModal();
  });
});
if (dialog) dialog.addEventListener('click', () => dialog.close());
const contents = document.querySelector('nav details');
const narrow = matchMedia('(max-width:900px)');
const fold = () => { contents.open = !narrow.matches; };
narrow.addEventListener('change', fold);
fold();
const links = new Map([...document.querySelectorAll('nav a[href^="#"]')].map((a) => [a.hash.slice(1), a]));
const watch = new IntersectionObserver((entries) => {
  entries.filter((e) => e.isIntersecting).forEach((e) => {
    links.forEach((a) => a.classList.remove('here'));
    links.get(e.target.id)?.classList.add('here');
  });
}, {rootMargin: '-10% 0px -75% 0px'});
links.forEach((_, id) => { const target = document.getElementById(id); if (target) watch.observe(target); });
