//! proto3 JSON by descriptor, both ways.

pub(crate) mod read;
pub(crate) mod scalar;
pub(crate) mod time;
pub(crate) mod tree;
pub(crate) mod well_known;
pub(crate) mod write;

use std::fmt;

/// Where in a request or a response a value stands; prints as `items[1].colour`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(&clip(name)),
            Path::Field(parent, name) => {
                parent.steps(f)?;
                write!(f, ".{}", clip(name))
            }
            Path::Index(parent, index) => {
                parent.steps(f)?;
                write!(f, "[{index}]")
            }
            Path::Key(parent, key) => {
                parent.steps(f)?;
                write!(f, "[{:?}]", clip(key))
            }
        }
    }
}

/// The root itself is called `body`.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self, Path::Root) {
            f.write_str("body")
        } else {
            self.steps(f)
        }
    }
}

/// The most characters of a client's own text that an error repeats.
const QUOTED_CHARS_MAX: usize = 64;

/// A client's own text, short enough for an error message.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
