// Pages in Japanese are NAME.ja.html in a book whose language is English: this says so to browsers and screen readers, and takes
// out the line ends of the source within a sentence, which browsers would show as blanks.
if (location.pathname.endsWith('.ja.html')) {
  document.documentElement.lang = 'ja';
  const joined = /(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])\n(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])/g;
  const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (!text.parentElement.closest('pre')) text.data = text.data.replace(joined, '');
  }
}
