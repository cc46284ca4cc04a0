//! What is wrong with a policy, where, and what to do about it; for a terminal and for programs.
//!
//! Every stage of the compiler reports into one [`Sink`], so that a policy with several mistakes is told about all of
//! them at once.

use ariadne::{CharSet, Config, IndexType, Label, Report, ReportKind};
use serde::Serialize;
use std::ops::Range;

/// Bytes of the source, from and up to.
pub type Span = Range<usize>;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The file as the caller named it.
    pub file: String,
    /// Line of the place, from 1.
    pub line: usize,
    /// Column of the place in characters, from 1.
    pub column: usize,
    /// The bytes of the source the caret points at.
    #[serde(skip)]
    pub span: Span,
    /// What the caret says.
    pub label: String,
    /// Other places that explain this one.
    #[serde(skip)]
    pub related: Vec<(Span, String)>,
}

/// Why a policy did not compile: at least one [`Diagnostic`].
///
/// [`std::fmt::Display`] renders them without colour; [`Diagnostics::render`] can colour them.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    name: String,
    text: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Every mistake, in the order of the source.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// The report for people: file, line, caret, reason, help.
    pub fn render(&self, color: bool) -> String {
        let mut out = Vec::new();
        let config = Config::default().with_color(color).with_char_set(CharSet::Ascii);
        let config = config.with_index_type(IndexType::Byte).with_tab_width(4);
        let name = self.name.as_str();
        let source = ariadne::Source::from(self.text.as_str());
        for diagnostic in &self.list {
            let mut report = Report::build(ReportKind::Error, (name, diagnostic.span.clone()))
                .with_config(config)
                .with_message(&diagnostic.message)
                .with_label(Label::new((name, diagnostic.span.clone())).with_message(&diagnostic.label));
            for (span, text) in &diagnostic.related {
                report = report.with_label(Label::new((name, span.clone())).with_message(text));
            }
            if let Some(help) = &diagnostic.help {
                report = report.with_help(help);
            }
            // Writing to memory cannot fail; what a failure would leave out is still in the list.
            let _ = report.finish().write((name, &source), &mut out);
        }
        let text = String::from_utf8_lossy(&out);
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// The same as JSON: a list of objects with message, help, file, line, column and label.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.list).unwrap_or_default()
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects mistakes while a policy is compiled.
#[derive(Clone, Debug)]
pub(crate) struct Sink<'a> {
    name: &'a str,
    text: &'a str,
    list: Vec<Diagnostic>,
    /// Mistakes, those not kept included.
    count: usize,
}

/// More than this many at once help nobody.
const REPORTED_MAX: usize = 20;
/// Mistakes that are kept until the first [`REPORTED_MAX`] of them are known. A text can have one per character.
const KEPT_MAX: usize = 1000;

impl<'a> Sink<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Sink<'a> {
        Sink { name, text, list: Vec::new(), count: 0 }
    }

    /// Reports a mistake at `span`; what is returned can be given help and related places.
    pub(crate) fn error(
        &mut self,
        span: &Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        let span = self.clamp(span);
        self.count += 1;
        if self.list.len() > KEPT_MAX {
            self.list.truncate(KEPT_MAX);
        }
        self.list.push(Diagnostic {
            message: message.into(),
            help: None,
            file: String::new(),
            line: 0,
            column: 0,
            span,
            label: label.into(),
            related: Vec::new(),
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// A span inside the text and on character boundaries, whatever was asked for.
    fn clamp(&self, span: &Span) -> Span {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = span.end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    /// How many mistakes there are so far.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The mistakes, if there are any, in the order of the source. What is reported of a place after something else is
    /// mostly a consequence of that.
    pub(crate) fn finish(self) -> Result<(), Diagnostics> {
        let Sink { name, text, mut list, count: _ } = self;
        if list.is_empty() {
            return Ok(());
        }
        list.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        list.dedup_by(|a, b| a.span == b.span);
        list.truncate(REPORTED_MAX);
        for diagnostic in &mut list {
            let before = &text[..diagnostic.span.start];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            diagnostic.file = name.to_owned();
            diagnostic.line = before.matches('\n').count() + 1;
            diagnostic.column = before[line_start..].chars().count() + 1;
        }
        Err(Diagnostics { name: name.to_owned(), text: text.to_owned(), list })
    }
}

impl Diagnostic {
    /// Says what to do about it.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Says what to do about it, where that is known.
    pub(crate) fn maybe_help(&mut self, help: Option<String>) -> &mut Diagnostic {
        self.help = help;
        self
    }

    /// Points at another place that explains this one.
    pub(crate) fn related(&mut self, span: &Span, text: impl Into<String>) -> &mut Diagnostic {
        self.related.push((span.clone(), text.into()));
        self
    }
}
