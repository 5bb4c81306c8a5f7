// Light, dark, or as the system has it. The colours are pairs in the style sheet; this only says which half is in force.
import { effect, signal } from "@preact/signals";

const key = "postern.theme";
const themes = ["auto", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

function stored(): Theme {
  const value = localStorage.getItem(key);
  return themes.find((t) => t === value) ?? "auto";
}

export const theme = signal<Theme>(stored());

export function nextTheme() {
  theme.value = themes[(themes.indexOf(theme.value) + 1) % themes.length]!;
  localStorage.setItem(key, theme.value);
}

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
