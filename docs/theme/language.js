// Pages in Japanese are NAME.ja.html in a book whose language is English: this says so to browsers and screen readers.
if (location.pathname.endsWith('.ja.html')) document.documentElement.lang = 'ja';
