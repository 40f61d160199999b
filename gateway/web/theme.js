// Before the first paint: the colours that were chosen here the last time. A classic script, because modules come later.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing has the system's colours.
}
