"""The style sheet of the page: phone and desktop, light and dark."""

STYLE = """
:root { --ink: #1b1f24; --paper: #ffffff; --line: #d5d9de; --soft: #f4f6f8; --quiet: #57606a;
  --good: #1a7f37; --bad: #cf222e; --open: #9a6700; --link: #0b63c5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16191d; --line: #3a4048; --soft: #1f242a; --quiet: #9da5ae;
    --good: #4ac26b; --bad: #ff7b72; --open: #e3b341; --link: #6cb2ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
h1 { margin: 24px 0 8px; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 36px 0 12px; padding-top: 12px; border-top: 1px solid var(--line); font-size: 1.3rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; }
.verdict { display: inline-block; margin: 0 0 12px; padding: 6px 12px; border-radius: 6px;
  border: 1px solid currentColor; font-weight: 600; }
.verdict.pass { color: var(--good); } .verdict.fail { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 8px;
  margin: 0 0 16px; }
.tiles div { padding: 8px 12px; background: var(--soft); border-radius: 6px; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
details { margin: 8px 0; border: 1px solid var(--line); border-radius: 6px; }
summary { padding: 8px 12px; cursor: pointer; font-weight: 600; }
.scroll { overflow-x: auto; }
table { width: 100%; min-width: 640px; border-collapse: collapse; font-size: .88rem; }
th, td { padding: 5px 12px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--quiet); font-weight: 600; }
td:first-child { white-space: nowrap; font-weight: 600; }
tr.pass td:first-child { color: var(--good); } tr.fail td:first-child { color: var(--bad); }
tr.not td:first-child { color: var(--open); }
figure { margin: 0 0 24px; }
figcaption, .note { margin: 0 0 8px; color: var(--quiet); max-width: 75ch; }
img { display: block; max-width: 100%; height: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr));
  gap: 12px; }
.rows { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 4px 16px;
  margin: 0; }
.rows dt { color: var(--quiet); } .rows dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: 12px; font-size: .82rem; }
code { overflow-wrap: anywhere; }
footer { margin: 36px auto 24px; color: var(--quiet); font-size: .85rem; }
@media (max-width: 600px) {
  img.wide { max-width: none; width: 760px; }
  .rows { grid-template-columns: 1fr; } .rows dd { margin-bottom: 8px; } }
"""
