//! Splits CSV (RFC 4180) into records while the bytes arrive, with the line on which each begins.
//!
//! The `csv` crate reads from a blocking source and counts lines at the end of a record; here bytes
//! are pushed as a stream delivers them, memory is bounded by one record, and a fault in a record is
//! a value beside the good ones. The tests compare the two on arbitrary input.

/// The byte order mark that some programs put first.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// How much a record may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest field, in bytes.
    pub field_bytes_max: usize,
    /// The most fields of a record.
    pub fields_max: usize,
}

/// A record, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The line on which it begins; the first is 1.
    pub line: u32,
    /// Its fields, or the first fault.
    pub content: Result<Vec<String>, Fault>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field at fault, from 0.
    pub field: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The bytes are no text: nothing after this can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not valid UTF-8")]
pub struct NotUtf8 {
    /// The line on which the record begins.
    pub line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a record.
    Start,
    /// Before the first byte of a field that is not the first.
    Field,
    /// In a field without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// After a quote between quotes: the end of the field, or half of an escaped quote.
    Quote,
}

/// Takes bytes, gives records.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    bom_bytes: Option<usize>,
    after_cr: bool,
    line: u32,
    record_line: u32,
    field: Vec<u8>,
    fields: Vec<String>,
    fields_seen: usize,
    fault: Option<Fault>,
}

impl Parser {
    /// A parser before its first byte.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            bom_bytes: Some(0),
            after_cr: false,
            line: 1,
            record_line: 1,
            field: Vec::new(),
            fields: Vec::new(),
            fields_seen: 0,
            fault: None,
        }
    }

    /// Takes a piece of the file and appends the records that it completes.
    pub fn push(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<(), NotUtf8> {
        for byte in bytes {
            if self.is_in_bom(*byte, records)? {
                continue;
            }
            self.byte(*byte, records)?;
        }
        Ok(())
    }

    /// Takes the end of the file and appends the record that it completes, if any.
    pub fn finish(mut self, records: &mut Vec<Record>) -> Result<(), NotUtf8> {
        if let Some(seen) = self.bom_bytes.take() {
            for byte in &BOM[..seen] {
                self.byte(*byte, records)?;
            }
        }
        if self.state == State::Quoted {
            self.fail("is quoted, and the quote is not closed before the end of the file");
        }
        if self.state != State::Start {
            self.end_record(records)?;
        }
        Ok(())
    }

    /// Swallows a byte order mark at the very beginning.
    fn is_in_bom(&mut self, byte: u8, records: &mut Vec<Record>) -> Result<bool, NotUtf8> {
        let Some(seen) = self.bom_bytes else {
            return Ok(false);
        };
        if byte == BOM[seen] {
            self.bom_bytes = (seen + 1 < BOM.len()).then_some(seen + 1);
            return Ok(true);
        }
        self.bom_bytes = None;
        for earlier in &BOM[..seen] {
            self.byte(*earlier, records)?; // It was something else that begins alike.
        }
        Ok(false)
    }

    fn byte(&mut self, byte: u8, records: &mut Vec<Record>) -> Result<(), NotUtf8> {
        let second_half = std::mem::take(&mut self.after_cr) && byte == b'\n';
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Quote,
            (State::Quoted, _) => {
                self.line += u32::from(byte == b'\n');
                self.keep(byte);
            }
            (State::Quote, b'"') => {
                self.keep(b'"');
                self.state = State::Quoted;
            }
            (State::Start, b'\n') if second_half => {}
            (State::Start, b'\n' | b'\r') => self.next_line(byte), // An empty line is no record.
            (_, b'\n' | b'\r') => {
                self.end_record(records)?;
                self.next_line(byte);
            }
            (state, _) => {
                if state == State::Start {
                    self.record_line = self.line;
                }
                self.in_record(state, byte)?;
            }
        }
        Ok(())
    }

    fn in_record(&mut self, state: State, byte: u8) -> Result<(), NotUtf8> {
        match (state, byte) {
            (_, b',') => {
                self.end_field()?;
                self.state = State::Field;
            }
            (State::Start | State::Field, b'"') => self.state = State::Quoted,
            (State::Quote, _) => {
                self.fail("has text after its closing quote");
                self.state = State::Plain;
            }
            _ => {
                self.keep(byte);
                self.state = State::Plain;
            }
        }
        Ok(())
    }

    fn next_line(&mut self, byte: u8) {
        self.line += 1;
        self.after_cr = byte == b'\r';
    }

    fn keep(&mut self, byte: u8) {
        if self.field.len() < self.limits.field_bytes_max {
            self.field.push(byte);
        } else {
            self.fail(&format!(
                "is longer than {} bytes",
                self.limits.field_bytes_max
            ));
            self.field.clear(); // What was cut may end within a character.
        }
    }

    fn fail(&mut self, reason: &str) {
        let field = self.fields_seen;
        self.fault.get_or_insert_with(|| Fault {
            field,
            reason: reason.to_owned(),
        });
    }

    fn end_field(&mut self) -> Result<(), NotUtf8> {
        let bytes = std::mem::take(&mut self.field);
        if self.fault.is_none() {
            let text = String::from_utf8(bytes).map_err(|_| NotUtf8 {
                line: self.record_line,
            })?;
            if self.fields.len() < self.limits.fields_max {
                self.fields.push(text);
            } else {
                self.fail(&format!(
                    "is one of more than {} fields",
                    self.limits.fields_max
                ));
            }
        }
        self.fields_seen += 1;
        Ok(())
    }

    fn end_record(&mut self, records: &mut Vec<Record>) -> Result<(), NotUtf8> {
        self.end_field()?;
        let fields = std::mem::take(&mut self.fields);
        let content = self.fault.take().map_or(Ok(fields), Err);
        records.push(Record {
            line: self.record_line,
            content,
        });
        self.fields_seen = 0;
        self.state = State::Start;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        field_bytes_max: 1000,
        fields_max: 50,
    };

    fn parse_in_pieces(bytes: &[u8], piece: usize, limits: Limits) -> Result<Vec<Record>, NotUtf8> {
        let mut parser = Parser::new(limits);
        let mut records = Vec::new();
        for part in bytes.chunks(piece) {
            parser.push(part, &mut records)?;
        }
        parser.finish(&mut records)?;
        Ok(records)
    }

    fn rows(text: &str) -> Vec<(u32, Vec<String>)> {
        let records = parse_in_pieces(text.as_bytes(), 3, LIMITS).unwrap();
        records
            .into_iter()
            .map(|record| (record.line, record.content.unwrap()))
            .collect()
    }

    fn row(line: u32, fields: &[&str]) -> (u32, Vec<String>) {
        (line, fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lines_count_through_quoted_line_breaks_and_empty_lines() {
        let expected = [
            row(1, &["a", "b"]),
            row(2, &["1\n2\n3", "x"]),
            row(6, &["4", "5"]),
            row(7, &["6", ""]),
        ];
        let text = "a,b\n\"1\n2\n3\",x\n\n4,5\n6,";
        assert_eq!(rows(text), expected);
        let with_crlf = text.replace('\n', "\r\n");
        let unix: Vec<_> = rows(&with_crlf)
            .into_iter()
            .map(|(line, fields)| {
                (
                    line,
                    fields
                        .iter()
                        .map(|f| f.replace("\r\n", "\n"))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(unix, expected);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_field() {
        assert_eq!(rows("\u{feff}\"Handle\",b\n"), [row(1, &["Handle", "b"])]);
        assert_eq!(rows("\u{fec0}a"), [row(1, &["\u{fec0}a"])]);
        assert_eq!(rows("\u{feff}"), []);
    }

    #[test]
    fn a_fault_leaves_the_other_records_whole() {
        let limits = Limits {
            field_bytes_max: 4,
            fields_max: 2,
        };
        let text = "a,b\nlonger,b\n\"q\"x,b\n1,2,3\nc,\"open\n\n";
        let records = parse_in_pieces(text.as_bytes(), 2, limits).unwrap();
        let faults: Vec<_> = records
            .iter()
            .filter_map(|r| {
                r.content
                    .as_ref()
                    .err()
                    .map(|f| (r.line, f.field, f.reason.as_str()))
            })
            .collect();
        assert_eq!(
            faults,
            [
                (2, 0, "is longer than 4 bytes"),
                (3, 0, "has text after its closing quote"),
                (4, 2, "is one of more than 2 fields"),
                (5, 1, "is longer than 4 bytes"),
            ]
        );
        let open = parse_in_pieces(b"a,\"b", 1, limits).unwrap();
        assert!(
            open[0]
                .content
                .as_ref()
                .unwrap_err()
                .reason
                .contains("not closed")
        );
    }

    #[test]
    fn bytes_that_are_no_text_name_their_line() {
        let error = parse_in_pieces(b"a\nb,\xff\n", 1, LIMITS).unwrap_err();
        assert_eq!(error.line, 2);
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(
            table in prop::collection::vec(prop::collection::vec("[a-c,\"\r\n é가]{0,6}", 3), 1..8),
            piece in 1usize..9,
            crlf: bool,
        ) {
            let terminator =
                if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
            for fields in &table {
                writer.write_record(fields).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let records = parse_in_pieces(&bytes, piece, LIMITS).unwrap();
            let mut line = 1;
            prop_assert_eq!(records.len(), table.len());
            for (record, fields) in records.iter().zip(&table) {
                prop_assert_eq!(record.content.as_ref().unwrap(), fields);
                prop_assert_eq!(record.line, line);
                let inside: usize = fields.iter().map(|field| field.matches('\n').count()).sum();
                line += 1 + u32::try_from(inside).unwrap();
            }
        }

        #[test]
        fn pieces_make_no_difference(
            bytes in prop::collection::vec(prop::sample::select(b"a,\"\r\n\xea\xb0\x80".to_vec()), 0..60),
            piece in 1usize..9,
        ) {
            let limits = Limits { field_bytes_max: 5, fields_max: 3 };
            let whole = parse_in_pieces(&bytes, 1000, limits);
            prop_assert_eq!(parse_in_pieces(&bytes, piece, limits), whole);
        }
    }
}
