//! How are the figures shown? As tables in `docs/performance.md`, and as bars beside the limits in `docs/performance.svg`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;

/// Between these lines stands what was measured last.
const BEGIN: &str = "<!-- measured by make bench -->";
const END: &str = "<!-- end -->";

/// How high a bar is, how wide the longest may be, and where bars begin.
const HEIGHT: u32 = 14;
const WIDTH: f64 = 360.0;
const LEFT: u32 = 260;

/// What is printed and kept.
#[derive(Debug, Default)]
pub(crate) struct Page {
    lines: Vec<String>,
    bars: Vec<Bar>,
}

/// Seconds of ours beside those of a limit.
#[derive(Debug)]
struct Bar {
    label: String,
    limit: f64,
    ours: f64,
}

impl Page {
    /// Prints a line, and keeps it.
    pub(crate) fn say(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }

    /// The head of a table, whose first column is of text.
    pub(crate) fn head(&mut self, columns: &[&str]) {
        self.say(String::new());
        self.say(format!("| {} |", columns.join(" | ")));
        self.say(format!("|---|{}", "--:|".repeat(columns.len().saturating_sub(1))));
    }

    /// Draws ours beside a limit.
    pub(crate) fn bar(&mut self, label: &str, limit: f64, ours: f64) {
        self.bars.push(Bar { label: label.to_owned(), limit, ours });
    }

    /// Writes both files.
    pub(crate) fn write(&self, docs: &Path) -> Result<()> {
        let path = docs.join("performance.md");
        let text = fs::read_to_string(&path)?;
        let (Some((before, _)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END)) else {
            return Err(format!("{} has no place for figures", path.display()).into());
        };
        let lines = self.lines.join("\n");
        fs::write(&path, format!("{before}{BEGIN}\n{}\n\n{END}{after}", lines.trim()))?;
        fs::write(docs.join("performance.svg"), self.svg())?;
        Ok(())
    }

    fn svg(&self) -> String {
        let height = self.bars.len() as u32 * (HEIGHT * 2 + 12) + 40;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <text x=\"{LEFT}\" y=\"16\">seconds of the limit (grey) and of etl (blue), each pair to its own scale</text>\n"
        );
        for (place, Bar { label, limit, ours }) in (0_u32..).zip(&self.bars) {
            let (top, scale) = (30 + place * (HEIGHT * 2 + 12), WIDTH / limit.max(*ours));
            // Writing to a text does not fail.
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>", LEFT - 8, top + HEIGHT);
            for (row, seconds, colour) in [(0, limit, "#b0b0b0"), (1, ours, "#3b78c2")] {
                let (y, width) = (top + row * HEIGHT, seconds * scale);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"{}\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{}\">{seconds:.2}</text>",
                    HEIGHT - 2,
                    f64::from(LEFT) + width + 6.0,
                    y + HEIGHT - 4
                );
            }
        }
        svg + "</svg>\n"
    }
}
