// Light, dark, or as the system has it. The choice is kept in this browser.
// This is no module, so that it runs before the first paint.
"use strict";

{
    const KEY = "lockkit-theme";
    const CHOICES = ["auto", "light", "dark"];
    const NAMES = { auto: "Theme: automatic", light: "Theme: light", dark: "Theme: dark" };
    const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

    const read = () => {
        try {
            const kept = localStorage.getItem(KEY);
            return CHOICES.includes(kept) ? kept : "auto";
        } catch {
            return "auto"; // a browser may forbid pages to keep anything
        }
    };

    let choice = read();
    const show = () => {
        document.documentElement.dataset.theme = choice;
        const button = document.getElementById("theme");
        if (!button) return;
        button.textContent = SIGNS[choice];
        button.setAttribute("aria-label", NAMES[choice]);
        button.title = NAMES[choice];
    };

    show();
    document.addEventListener("DOMContentLoaded", () => {
        show();
        document.getElementById("theme").addEventListener("click", () => {
            choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
            show();
            try {
                localStorage.setItem(KEY, choice);
            } catch {
                // then it lasts until the page is loaded again
            }
        });
    });
}
