//! Where each node of the file stands.
//!
//! The nodes lie flat in document order, each with the index one past its last descendant. Depth
//! and number are counted as the events come, aliases with all that they stand for, so a file that
//! would grow without bound is refused at the node with which it would.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScanError, Span, StrInput, Tag};

use super::super::limits;
use super::super::problem::{Position, Problem, SMALLEST, quote};
use super::syntax;

/// One node.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) at: Position,
    pub(super) shape: Shape,
    /// The index one past its last descendant.
    pub(super) end: usize,
}

/// What a node looks like.
#[derive(Debug)]
pub(super) enum Shape {
    /// As typed, without quotes.
    Scalar(String),
    List,
    Map,
    /// Stands for the node with this index.
    Alias(usize),
}

/// Every node of the one document, the root first.
#[derive(Debug, Default)]
pub(super) struct Marks {
    nodes: Vec<Mark>,
    /// Lists and maps that have not ended.
    open: Vec<Open>,
    anchors: HashMap<usize, Anchor>,
    /// How many nodes there are once each alias is what it stands for.
    count: usize,
    documents: usize,
}

#[derive(Debug)]
struct Open {
    index: usize,
    anchor: usize,
    /// `Marks::count` before it.
    count: usize,
    /// Levels below it.
    height: usize,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    index: usize,
    count: usize,
    height: usize,
}

impl Marks {
    /// The marks of the only document in `text`.
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let mut marks = Self::default();
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| marks.syntax(&error, text))?;
            marks.event(event, span)?;
        }
        if marks.nodes.is_empty() {
            return Err(Problem::in_file(Position::START, "the file is empty").help(SMALLEST));
        }
        Ok(marks)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Mark> {
        self.nodes.get(index)
    }

    /// A problem with what the scanner refuses.
    fn syntax(&self, error: &ScanError, text: &str) -> Problem {
        if error.info().contains("recursion limit") {
            return too_deep(position(error.marker()));
        }
        let at = position(error.marker());
        let open = self.open.last().and_then(|open| Some(self.nodes.get(open.index)?.at));
        syntax::problem(error.info(), at, open, text)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = position(&span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Problem::in_file(at, "a second document starts here").help(
                        "a configuration is one document: remove the `---` between the two",
                    ));
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::Scalar(typed, _, anchor, tag) => {
                refuse(tag.as_deref(), at)?;
                let index = self.push(at, Shape::Scalar(typed.into_owned()))?;
                self.anchors.insert(anchor, Anchor { index, count: 1, height: 0 });
            }
            Event::SequenceStart(anchor, tag) => {
                refuse(tag.as_deref(), at)?;
                self.open(at, Shape::List, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse(tag.as_deref(), at)?;
                self.open(at, Shape::Map, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn push(&mut self, at: Position, shape: Shape) -> Result<usize, Problem> {
        let index = self.nodes.len();
        self.nodes.push(Mark { at, shape, end: index + 1 });
        self.grow(1, at)?;
        Ok(index)
    }

    fn open(&mut self, at: Position, shape: Shape, anchor: usize) -> Result<(), Problem> {
        let count = self.count;
        self.fits(1, at)?;
        let index = self.push(at, shape)?;
        self.open.push(Open { index, anchor, count, height: 0 });
        Ok(())
    }

    fn close(&mut self) {
        let end = self.nodes.len();
        let Some(closed) = self.open.pop() else { return };
        if let Some(mark) = self.nodes.get_mut(closed.index) {
            mark.end = end;
        }
        let height = closed.height + 1;
        let count = self.count - closed.count;
        self.anchors.insert(closed.anchor, Anchor { index: closed.index, count, height });
        self.reach(height);
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Problem> {
        let Some(&Anchor { index, count, height }) = self.anchors.get(&anchor) else {
            return Err(Problem::in_file(at, "this alias stands inside of what it stands for"));
        };
        self.fits(height, at)?;
        self.reach(height);
        self.push(at, Shape::Alias(index))?;
        // The alias itself is no node of the result; what it stands for is.
        self.grow(count - 1, at)
    }

    /// Refuses what would make the file too deep, `height` levels below what is open.
    fn fits(&self, height: usize, at: Position) -> Result<(), Problem> {
        if self.open.len() + height <= limits::FILE_DEPTH_MAX {
            return Ok(());
        }
        Err(too_deep(at))
    }

    fn reach(&mut self, height: usize) {
        if let Some(open) = self.open.last_mut() {
            open.height = open.height.max(height);
        }
    }

    fn grow(&mut self, count: usize, at: Position) -> Result<(), Problem> {
        self.count = self.count.saturating_add(count);
        if self.count <= limits::FILE_NODES_MAX {
            return Ok(());
        }
        let what = format!(
            "with this the file has more than {} values, each alias counted with all that it \
             stands for",
            limits::FILE_NODES_MAX
        );
        Err(Problem::in_file(at, what).help("is this the right file?"))
    }
}

fn too_deep(at: Position) -> Problem {
    let what = format!("lists and maps are nested more than {} deep here", limits::FILE_DEPTH_MAX);
    Problem::in_file(at, what).help("is this the right file?")
}

fn refuse(tag: Option<&Tag>, at: Position) -> Result<(), Problem> {
    let Some(tag) = tag else { return Ok(()) };
    let typed =
        if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
    Err(Problem::in_file(at, format!("the tag {} has no meaning here", quote(&typed)))
        .help("leave it out; put text in quotes"))
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}
