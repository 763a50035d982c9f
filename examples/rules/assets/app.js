// One page, its routes decided in the browser: any unknown path is answered with index.html.
const pages = {
  "/": "Open from six until the bread is gone.",
  "/menu": "Rye, spelt, and on Fridays a saffron plait.",
  "/news": "The oven has been rebuilt.",
};
const path = location.pathname.startsWith("/news/") ? "/news" : location.pathname;
document.getElementById("page").textContent = pages[path] ?? "There is no such page here.";
