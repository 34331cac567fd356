/* Two mends of what the generators of these pages write. */
"use strict";

// Opened from disk, a page may not read its neighbours: the search then goes without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The references are a list, whose entries have to be its items.
for (const entry of document.querySelectorAll('[role="list"] > .citation')) {
  entry.setAttribute("role", "listitem");
}
