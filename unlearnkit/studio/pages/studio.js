const $ = (what, where = document) => where.querySelector(what);
const all = (what, where = document) => [...where.querySelectorAll(what)];
const words = form => new URLSearchParams(new FormData(form));

async function send(address, fields) {
  const answer = await fetch(address, { method: 'POST', body: fields }).catch(() => null);
  if (!answer) return 'The studio does not answer: was it ended in its terminal?';
  return answer.ok ? '' : answer.text();
}

// put new content in place: what was in focus, and what was unfolded, stays so
function swap(old, fresh) {
  const focus = document.activeElement?.id, open = all('details', old).map(one => [one.id, one.open]);
  old.replaceChildren(...fresh.childNodes);
  for (const [id, was] of open) { const now = document.getElementById(id); if (now) now.open = was; }
  if (focus && document.activeElement === document.body) document.getElementById(focus)?.focus();
}

async function load(address) {
  const answer = await fetch(address).catch(() => null);
  if (!answer) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  swap($('#main'), $('#main', page));
  history.replaceState(null, '', address);
  ready();
}

function say(form, text) {
  const place = $('.error', form), named = /setting '(\w+)'/.exec(text)?.[1];
  for (const one of all('[name^=set-]', form)) one.setAttribute('aria-invalid', one.name === `set-${named}`);
  if (place) { place.textContent = text; place.hidden = !text; }
  else if (text) alert(text);
}

// the command that a form stands for
async function show(form) {
  const place = $('.command pre', form);
  if (!place) return;
  const lacks = $('input:invalid', form);
  if (lacks) { place.textContent = `… ${lacks.labels[0].textContent}: ${lacks.validationMessage}`; $('.copy', form).hidden = true; return; }
  const fields = words(form);
  fields.set('what', $('button[name=what]', form).value);
  const answer = await fetch('command', { method: 'POST', body: fields }).catch(() => null);
  if (!answer) return;
  const text = await answer.text();
  place.textContent = answer.ok ? text : '…';
  $('.copy', form).hidden = !answer.ok || !navigator.clipboard;
  say(form, answer.ok || !form.dataset.touched ? '' : text);
}

let waiting;
document.addEventListener('input', event => {
  const form = event.target.form;
  if (!form) return;
  form.dataset.touched = 1;
  const shown = event.target.type === 'range' && $(`output[for=${event.target.id}]`);
  if (shown) shown.textContent = event.target.value;
  clearTimeout(waiting);
  waiting = setTimeout(() => show(form), 200);
});
document.addEventListener('change', event => {
  if (event.target.dataset.reload === undefined) return;
  load(`${event.target.form.getAttribute('action')}?${words(event.target.form)}`);
});
document.addEventListener('submit', async event => {
  const form = event.target;
  event.preventDefault();
  if (form.dataset.page !== undefined) return load(`${form.getAttribute('action')}?${words(form)}`);
  const fields = words(form);
  fields.set('what', event.submitter?.value || $('button[name=what]', form).value);
  fields.set('tab', $('#panel').dataset.tab);
  const text = await send('start', fields);
  say(form, text);
  if (!text) begun();
});
document.addEventListener('click', async event => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.classList.contains('curtain')) { button.parentNode.classList.remove('hidden'); button.remove(); }
  if (button.classList.contains('copy')) {
    await navigator.clipboard.writeText($('pre', button.parentNode).textContent);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  }
  if (button.dataset.fill) {
    const field = document.getElementById(button.dataset.fill);
    field.value = button.textContent;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    field.focus();
  }
  if (button.dataset.send && (!button.dataset.confirm || confirm(button.dataset.confirm))) {
    const text = await send(button.dataset.send, new URLSearchParams(button.dataset.value));
    if (text) alert(text);
    else if (button.dataset.send === 'start') begun();
    else look();
  }
});

async function begun() {
  await look();
  $('#panel').scrollIntoView({ block: 'nearest' });
}

// the job: asked for every second while it is at work
let seen = '', timer;
async function look() {
  clearTimeout(timer);
  const panel = $('#panel'), before = $('[data-job]', panel);
  const was = before && !before.dataset.ended ? before.dataset.job : '';
  const answer = await fetch(`panel?${new URLSearchParams({ tab: panel.dataset.tab, seen })}`).catch(() => null);
  if (answer?.ok && answer.status !== 204) {
    const fresh = document.createElement('div');
    fresh.innerHTML = await answer.text();
    seen = answer.headers.get('X-State');
    const now = $('[data-job]', fresh);
    if (now?.dataset.job !== before?.dataset.job || now?.dataset.ended !== before?.dataset.ended)
      panel.replaceChildren(...fresh.childNodes);
    else swap(panel, fresh);
    if (was && now?.dataset.ended && $('#main').dataset.lists !== undefined) load(location.href);
  }
  const running = $('[data-job][data-ended=""], .note', panel);
  timer = setTimeout(look, running ? 1000 : 4000);
}

// pictures one after another, so that the first is there soon
let round = 0;
async function draw() {
  const mine = ++round;
  for (const place of all('[data-picture]')) {
    const answer = await fetch(place.dataset.picture).catch(() => null);
    if (mine !== round) return;
    const text = $('span', place);
    if (!answer?.ok) { text.textContent = answer ? await answer.text() : 'The studio does not answer.'; text.className = 'lost'; continue; }
    const picture = new Image();
    picture.src = URL.createObjectURL(await answer.blob());
    picture.alt = $('figcaption', place.parentNode).firstChild.textContent.trim();
    picture.onload = () => picture.classList.toggle('large', picture.naturalWidth > 200);
    text.replaceWith(picture);
  }
}

function ready() {
  all('form').forEach(show);
  draw();
}
ready();
look();
