//! What a person sees while something takes its time: one live line per part, with its seconds.
//!
//! Where there is no terminal each change is a line of its own. It never decides whether something is ready.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a live line is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// All live lines of this process.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    lines: MultiProgress,
    live: bool,
}

/// The live line of one part.
#[derive(Debug)]
pub(crate) struct Line {
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self { lines: MultiProgress::new(), live: std::io::stderr().is_terminal() }
    }

    /// Opens the line of a part that begins to do something.
    pub(crate) fn line(&self, name: &str, doing: &str) -> Line {
        let begun = Instant::now();
        if !self.live {
            eprintln!("{name:<16} {doing}");
            return Line { name: name.to_owned(), begun, bar: None };
        }
        let style = ProgressStyle::with_template("{spinner:.cyan} {prefix:<16} {wide_msg} {elapsed:>4}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = self.lines.add(ProgressBar::new_spinner());
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(DRAW_EVERY);
        Line { name: name.to_owned(), begun, bar: Some(bar) }
    }

    /// Says something that stays, above the live lines.
    pub(crate) fn say(&self, text: &str) {
        // A line that cannot be drawn is no reason to stop what it tells about.
        if !self.live || self.lines.println(text).is_err() {
            eprintln!("{text}");
        }
    }
}

impl Line {
    /// Changes what the line says; without a terminal nothing is printed.
    pub(crate) fn doing(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Closes the line with its result and its seconds.
    pub(crate) fn done(self, result: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let text = format!("{:<16} {result} ({seconds:.1} s)", self.name);
        match self.bar {
            None => eprintln!("{text}"),
            Some(bar) => {
                let style =
                    ProgressStyle::with_template("  {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
                bar.set_style(style);
                bar.finish_with_message(text);
            }
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
