for (const slider of document.querySelectorAll('.stage input'))
  slider.addEventListener('input', () => slider.parentNode.style.setProperty('--x', slider.value + '%'));
for (const curtain of document.querySelectorAll('.curtain'))
  curtain.addEventListener('click', () => { curtain.parentNode.classList.remove('hidden'); curtain.remove(); });
