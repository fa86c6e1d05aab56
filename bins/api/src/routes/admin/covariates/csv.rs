//! Covariates as CSV (RFC 4180), read as it arrives.

use csv_core::{ReadRecordResult, Reader};
use podium_domain::fault::code;
use podium_domain::text;
use podium_storage::experiments::covariates::CovariateRow;

use super::rows::{Batch, value};

/// Bytes of a record that are kept: a unit has at most 255 characters of 4 bytes, a number needs a few.
const RECORD: usize = 2048;
/// Fields of a record that are looked at; there should be two.
const FIELDS: usize = 8;
/// The first line.
const HEADER: [&str; 2] = ["unit", "value"];

/// Where a row stands: an RFC 6901 pointer with the number of its line.
pub(super) fn pointer(line: i64) -> String {
    format!("/{line}")
}

/// Reads a file in pieces of any size.
pub(super) struct CsvRows {
    reader: Reader,
    lines: Lines,
    record: Record,
    header: Header,
    /// What was read.
    pub(super) batch: Batch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Expected,
    Seen,
    /// Then nobody knows what the columns are.
    Wrong,
}

/// Counts lines, whatever ends them.
#[derive(Default)]
struct Lines {
    ended: i64,
    after_cr: bool,
}

impl Lines {
    fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.ended += i64::from(*byte == b'\r' || (*byte == b'\n' && !self.after_cr));
            self.after_cr = *byte == b'\r';
        }
    }
}

/// A record in the course of arriving.
struct Record {
    line: i64,
    open: bool,
    bytes: [u8; RECORD],
    len: usize,
    ends: [usize; FIELDS],
    fields: usize,
    quotes: usize,
    too_long: bool,
    too_many: bool,
}

impl Record {
    const fn new() -> Self {
        Self {
            line: 1,
            open: false,
            bytes: [0; RECORD],
            len: 0,
            ends: [0; FIELDS],
            fields: 0,
            quotes: 0,
            too_long: false,
            too_many: false,
        }
    }

    /// Begins another one. The bytes stay: writing zeros over them would take longer than reading the record.
    fn begin(&mut self, line: i64) {
        (self.line, self.open) = (line, true);
        (self.len, self.fields, self.quotes) = (0, 0, 0);
        (self.too_long, self.too_many) = (false, false);
    }

    /// Code and text of what is wrong with the record as such, or its two fields.
    fn split(&self) -> Result<[&[u8]; 2], (&'static str, &'static str)> {
        if self.quotes % 2 == 1 {
            let detail =
                "holds a quote that is not closed, or that stands in a field without quotes";
            return Err((code::INVALID_TEXT, detail));
        }
        if self.too_long {
            return Err((code::TOO_LONG, "is longer than any unit and value"));
        }
        let two = match (self.too_many, self.fields, self.ends) {
            (false, 2, [first, second, ..]) => self
                .bytes
                .get(..first)
                .zip(self.bytes.get(first..second))
                .map(|(unit, value)| [unit, value]),
            _ => None,
        };
        two.ok_or((code::WRONG_TYPE, "must have two fields, unit and value"))
    }
}

impl CsvRows {
    pub(super) fn new() -> Self {
        Self {
            reader: Reader::new(),
            lines: Lines::default(),
            record: Record::new(),
            header: Header::Expected,
            batch: Batch::default(),
        }
    }

    /// Reads some more of the file.
    pub(super) fn feed(&mut self, mut input: &[u8]) {
        loop {
            if !self.record.open {
                // Here, so that it is known on which line the record begins: the reader skips empty lines, too.
                let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
                let (blank, rest) = input.split_at(blank.count());
                self.lines.count(blank);
                input = rest;
            }
            // To the reader no input means that the file is over.
            if input.is_empty() {
                return;
            }
            if !self.record.open {
                self.record.begin(self.lines.ended + 1);
            }
            let read = self.read(input);
            input = input.get(read..).unwrap_or_default();
        }
    }

    /// Ends the file.
    pub(super) fn end(&mut self) {
        while self.record.open {
            self.read(&[]);
        }
        if self.header == Header::Expected {
            self.refuse_header(1);
        }
    }

    /// Lets the reader go on, and says how many bytes it took.
    fn read(&mut self, input: &[u8]) -> usize {
        let record = &mut self.record;
        let (result, read, written, ended) = self.reader.read_record(
            input,
            record.bytes.get_mut(record.len..).unwrap_or_default(),
            record.ends.get_mut(record.fields..).unwrap_or_default(),
        );
        let taken = input.get(..read).unwrap_or_default();
        self.lines.count(taken);
        record.quotes += taken.iter().filter(|byte| **byte == b'"').count();
        record.len += written;
        record.fields += ended;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull => {
                record.too_long = true;
                record.len = 0;
            }
            ReadRecordResult::OutputEndsFull => {
                record.too_many = true;
                record.fields = 0;
            }
            ReadRecordResult::Record => {
                self.take_record();
                self.record.open = false;
            }
            ReadRecordResult::End => self.record.open = false,
        }
        read
    }

    fn take_record(&mut self) {
        let (line, split) = (self.record.line, self.record.split());
        match (self.header, split) {
            (Header::Wrong, _) => {}
            (Header::Expected, Ok(fields)) if fields == HEADER.map(str::as_bytes) => {
                self.header = Header::Seen;
            }
            (Header::Expected, _) => self.refuse_header(line),
            (Header::Seen, Err((code, detail))) => {
                self.batch.fault(line, pointer(line), code, detail);
            }
            (Header::Seen, Ok([unit, number])) => {
                take_row(&mut self.batch, line, unit, number);
            }
        }
    }

    fn refuse_header(&mut self, line: i64) {
        self.header = Header::Wrong;
        let detail = "the first line must be `unit,value`";
        self.batch
            .fault(line, pointer(line), code::REQUIRED, detail);
    }
}

fn take_row(batch: &mut Batch, line: i64, unit: &[u8], number: &[u8]) {
    let at = |field: &str| format!("{}/{field}", pointer(line));
    let unit = match std::str::from_utf8(unit) {
        Ok(unit) => text::check_unit_id(unit)
            .map(|()| unit)
            .map_err(|fault| (fault.code(), fault.to_string())),
        Err(_) => Err((code::INVALID_TEXT, "must be UTF-8".to_owned())),
    };
    // What is no UTF-8 is no number either.
    let value = value(std::str::from_utf8(number).unwrap_or_default());
    if let Err((code, detail)) = &unit {
        batch.fault(line, at("unit"), code, detail);
    }
    if let Err((code, detail)) = &value {
        batch.fault(line, at("value"), code, detail);
    }
    if let (Ok(unit), Ok(value)) = (unit, value) {
        batch.rows.push(CovariateRow {
            place: line,
            unit: unit.to_owned(),
            value,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(file: &[u8], piece: usize) -> Batch {
        let mut rows = CsvRows::new();
        file.chunks(piece).for_each(|piece| rows.feed(piece));
        rows.end();
        rows.batch
    }

    /// Places, units and ten-thousandths.
    fn rows_of(file: &str) -> Vec<(i64, String, i64)> {
        let batch = read(file.as_bytes(), 1000);
        let rows = batch.rows.iter();
        let rows = rows.map(|r| (r.place, r.unit.clone(), r.value.units()));
        let rows = rows.collect();
        let faults = faults_of(batch);
        assert_eq!(faults, [], "{file}");
        rows
    }

    fn faults_of(batch: Batch) -> Vec<(String, &'static str)> {
        match batch.conclude(&[], pointer) {
            Ok(()) => Vec::new(),
            Err(error) => error
                .field_errors()
                .into_iter()
                .map(|e| (e.pointer, e.code))
                .collect(),
        }
    }

    #[test]
    fn rows_are_read_with_their_lines() {
        let row = |line, unit: &str, value| (line, unit.to_owned(), value);
        assert_eq!(
            rows_of("unit,value\r\nu1,12.5\r\n\"a, \"\"b\"\"\",-1\r\n"),
            [row(2, "u1", 125_000), row(3, "a, \"b\"", -10_000)]
        );
        assert_eq!(
            rows_of("unit,value\nu1,1\n\n\nu2,2"),
            [row(2, "u1", 10_000), row(5, "u2", 20_000)]
        );
        assert_eq!(
            rows_of("\u{feff}\"unit\",\"value\"\r1,\"1\"\r2,2"),
            [row(2, "1", 10_000), row(3, "2", 20_000)]
        );
        assert_eq!(rows_of("unit,value\n"), []);
        let longest = "ü".repeat(255);
        assert_eq!(
            rows_of(&format!("unit,value\n{longest},0")),
            [row(2, &longest, 0)]
        );
    }

    #[test]
    fn every_wrong_line_is_named() {
        let long = "x".repeat(256);
        let very_long = "x".repeat(5_000);
        let file = format!(
            "unit,value\na\nb,1,2\n,1\nc,\nd,one\n{long},1\n{very_long},1\ne,{very_long}\nf\0,1\n\"two\nlines\",1\n\
             g,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18\nh\"i,1\nfine,1\n,x\n\"never closed,1\nlast,1\n"
        );
        let want = [
            ("/2", "wrong_type"),
            ("/3", "wrong_type"),
            ("/4/unit", "too_short"),
            ("/5/value", "wrong_type"),
            ("/6/value", "wrong_type"),
            ("/7/unit", "too_long"),
            ("/8", "too_long"),
            ("/9", "too_long"),
            ("/10/unit", "invalid_text"),
            ("/11/unit", "invalid_text"),
            ("/13", "wrong_type"),
            ("/14", "invalid_text"),
            ("/16/unit", "too_short"),
            ("/16/value", "wrong_type"),
            ("/17", "invalid_text"),
        ];
        for piece in [1, 3, 10_000] {
            let batch = read(file.as_bytes(), piece);
            assert_eq!(batch.rows.len(), 1, "in pieces of {piece}");
            let found = faults_of(batch);
            let found: Vec<_> = found
                .iter()
                .map(|(pointer, code)| (pointer.as_str(), *code))
                .collect();
            assert_eq!(found, want, "in pieces of {piece}");
        }
        let batch = read(b"unit,value\n\xff,1\nb,\xff\n", 100);
        let found = [
            ("/2/unit".into(), "invalid_text"),
            ("/3/value".into(), "wrong_type"),
        ];
        assert_eq!(faults_of(batch), found);
    }

    #[test]
    fn another_header_ends_it() {
        for (file, line) in [
            ("", 1),
            ("\n\n", 1),
            ("u1,1\nu2,x\n", 1),
            ("\nvalue,unit\n", 2),
            ("unit,value,extra\n", 1),
            ("Unit,Value\nu1,x\n", 1),
            ("unit;value\n", 1),
        ] {
            let found = faults_of(read(file.as_bytes(), 100));
            assert_eq!(found, [(format!("/{line}"), "required")], "{file:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_and_pieces_do_not_matter(
            bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'1'), any::<u8>()], 0..200),
            piece in 1_usize..40,
        ) {
            let file: Vec<u8> = b"unit,value\n".iter().copied().chain(bytes).collect();
            let (whole, pieces) = (read(&file, file.len()), read(&file, piece));
            prop_assert_eq!(&whole.rows, &pieces.rows);
            prop_assert!(whole.rows.is_sorted_by(|a, b| a.place < b.place));
            prop_assert_eq!(faults_of(whole), faults_of(pieces));
        }

        #[test]
        fn what_is_quoted_comes_back(units in prop::collection::vec("[^\\x00-\\x1f\\x7f]{1,20}", 1..20)) {
            let mut file = String::from("unit,value\r\n");
            for unit in &units {
                file += &format!("\"{}\",1\r\n", unit.replace('"', "\"\""));
            }
            let read: Vec<String> = rows_of(&file).into_iter().map(|row| row.1).collect();
            prop_assert_eq!(read, units);
        }
    }
}
