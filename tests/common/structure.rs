//! What is promised of an output's bytes, whatever the module does: see `docs/how-it-works.md`.

use std::collections::BTreeMap;
use std::ops::Range;

use wasm_encoder::Encode;
use wasmparser::{
    BinaryReader, IndirectNameMap, Name, NameMap, NameSectionReader, Naming, Parser, Payload,
    Validator, WasmFeatures,
};
use wizer::{KeepInitFunc, Outcome};

use super::fixtures::Setup;

/// A module's sections, seen from outside.
pub struct Sections<'a> {
    /// In their order: the id, the name of a custom section, and the contents.
    pub all: Vec<(u8, Option<&'a str>, &'a [u8])>,
    /// Where the code section's contents begin.
    pub code: usize,
    /// The function bodies.
    pub bodies: Vec<Range<usize>>,
    /// For each data segment, whether it is passive, and its length.
    pub data: Vec<(bool, usize)>,
    pub has_data_count: bool,
}

const CUSTOM: u8 = 0;
const START: u8 = 8;
const DATA_COUNT: u8 = 12;

/// Reads a module's sections.
pub fn sections(wasm: &[u8]) -> Sections<'_> {
    let mut sections = Sections {
        all: Vec::new(),
        code: 0,
        bodies: Vec::new(),
        data: Vec::new(),
        has_data_count: false,
    };
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.unwrap();
        let name = match &payload {
            Payload::CustomSection(section) => Some(section.name()),
            _ => None,
        };
        if let Some((id, range)) = payload.as_section() {
            sections.all.push((id, name, &wasm[range]));
        }
        match payload {
            Payload::CodeSectionStart { range, .. } => sections.code = range.start,
            Payload::CodeSectionEntry(body) => sections.bodies.push(body.range()),
            Payload::DataCountSection { .. } => sections.has_data_count = true,
            Payload::DataSection(segments) => {
                for segment in segments {
                    let segment = segment.unwrap();
                    let passive = matches!(segment.kind, wasmparser::DataKind::Passive);
                    sections.data.push((passive, segment.data.len()));
                }
            }
            _ => {}
        }
    }
    sections
}

/// The custom sections that the output does not have.
pub fn is_dropped(name: &str) -> bool {
    name == "linking" || name.starts_with("reloc.")
}

/// Asserts everything that is promised of every output.
pub fn check(what: &str, input: &[u8], outcome: &Outcome, setup: &Setup) {
    let output = &outcome.wasm[..];
    assert_needs_no_more_features(what, input, output);
    let (before, after) = (sections(input), sections(output));
    assert_bodies_stay(what, (input, &before), (output, &after));
    let added = &after.bodies[before.bodies.len()..];
    // No locals, and the end.
    let are_empty = added.iter().all(|body| output[body.clone()] == [0, 0x0b]);
    let may_be_added = setup.keep_init_func == KeepInitFunc::Empty;
    assert!(
        added.is_empty() || (may_be_added && are_empty),
        "{what}: added functions"
    );
    assert_custom_sections_stay(what, &before, &after);
    assert_no_waste(what, &before, &after);

    let report = &outcome.report;
    assert_eq!(report.input_bytes, input.len() as u64, "{what}");
    assert_eq!(report.output_bytes, output.len() as u64, "{what}");
    let shift = match before.bodies.is_empty() {
        true => 0,
        false => after.code as i64 - before.code as i64,
    };
    assert_eq!(report.code_shift, shift, "{what}: the reported code shift");
    let dropped = before.all.iter().filter_map(|(_, name, _)| *name);
    let dropped: Vec<&str> = dropped.filter(|name| is_dropped(name)).collect();
    assert_eq!(report.dropped_sections, dropped, "{what}");
    let segments: u64 = report.memories.iter().map(|m| m.segments).sum();
    assert!(segments <= after.data.len() as u64, "{what}: segments");
    if setup.renames.is_empty() {
        assert!(report.warnings.is_empty(), "{what}: {:?}", report.warnings);
    }
}

/// Whether a module is valid, with every feature that there is.
pub fn validate(wasm: &[u8]) -> wasmparser::Result<()> {
    validate_with(wasm, WasmFeatures::all())
}

fn validate_with(wasm: &[u8], features: WasmFeatures) -> wasmparser::Result<()> {
    let mut validator = Validator::new_with_features(features);
    validator.validate_all(wasm).map(|_| ())
}

/// The output validates with every set of features that the input validates with.
fn assert_needs_no_more_features(what: &str, input: &[u8], output: &[u8]) {
    let mut features = WasmFeatures::all();
    validate(input).unwrap_or_else(|e| panic!("{what}: the input is not valid: {e}"));
    for feature in WasmFeatures::all().iter() {
        if validate_with(input, features - feature).is_ok() {
            features -= feature;
        }
    }
    // Both come with the proposal of bulk memory, which this validator does not insist on.
    let has_data_count = sections(input).has_data_count;
    if features.contains(WasmFeatures::REFERENCE_TYPES) || has_data_count {
        features |= WasmFeatures::BULK_MEMORY;
    }
    validate_with(output, features).unwrap_or_else(|e| {
        panic!("{what}: the output is not valid with the input's features: {e}")
    });
}

/// Function bodies are byte-identical, and at the same offset from the code section's start.
fn assert_bodies_stay(
    what: &str,
    (input, before): (&[u8], &Sections<'_>),
    (output, after): (&[u8], &Sections<'_>),
) {
    for (index, (old, new)) in before.bodies.iter().zip(&after.bodies).enumerate() {
        assert_eq!(
            old.start - before.code,
            new.start - after.code,
            "{what}: the place of body {index} in the code section"
        );
        assert!(
            input[old.clone()] == output[new.clone()],
            "{what}: the bytes of body {index}"
        );
    }
}

/// Custom sections are byte-identical, or dropped because they would not be true any more. They
/// stand between the same sections as before.
fn assert_custom_sections_stay(what: &str, before: &Sections<'_>, after: &Sections<'_>) {
    let customs = |sections: &Sections<'_>| -> Vec<(String, Vec<u8>)> {
        let all = sections.all.iter();
        all.filter_map(|(_, name, contents)| Some(((*name)?.to_string(), contents.to_vec())))
            .filter(|(name, _)| !is_dropped(name))
            // Its names are compared one by one, below.
            .map(|(name, contents)| match name.as_str() {
                "name" => (name, Vec::new()),
                _ => (name, contents),
            })
            .collect()
    };
    assert_eq!(customs(before), customs(after), "{what}: custom sections");
    if let Some(names) = names_without_segments(before) {
        assert_eq!(Some(names), names_without_segments(after), "{what}: names");
    }

    // The order of the sections that both have, the custom ones included.
    let order = |these: &Sections<'_>, others: &Sections<'_>| -> Vec<(u8, String)> {
        let in_both = |&(id, name, _): &(u8, Option<&str>, &[u8])| {
            let other = |(i, n, _): &(u8, Option<&str>, &[u8])| *i == id && *n == name;
            others
                .all
                .iter()
                .any(other)
                .then(|| (id, name.unwrap_or_default().to_string()))
        };
        these.all.iter().filter_map(in_both).collect()
    };
    assert_eq!(
        order(before, after),
        order(after, before),
        "{what}: the order of sections"
    );
}

/// The names of everything but segments, a line each. `None` where they cannot be read.
fn names_without_segments(sections: &Sections<'_>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for name in names(sections).ok()? {
        lines.extend(lines_of(name).ok()?);
    }
    Some(lines)
}

/// The names of data segments, by index.
pub fn data_names(sections: &Sections<'_>) -> Vec<(u32, String)> {
    let mut out = Vec::new();
    for name in names(sections).unwrap() {
        if let Name::Data(map) = name {
            let naming = |n: wasmparser::Result<Naming<'_>>| n.map(|n| (n.index, n.name.into()));
            out.extend(map.into_iter().map(|n| naming(n).unwrap()));
        }
    }
    out
}

/// The subsections of all `name` sections.
fn names<'a>(sections: &Sections<'a>) -> wasmparser::Result<Vec<Name<'a>>> {
    let mut names = Vec::new();
    for (_, name, contents) in &sections.all {
        if *name == Some("name") {
            let mut reader = BinaryReader::new(contents, 0);
            reader.read_string()?;
            let rest = BinaryReader::new(&contents[reader.original_position()..], 0);
            for name in NameSectionReader::new(rest) {
                names.push(name?);
            }
        }
    }
    Ok(names)
}

fn lines_of(name: Name<'_>) -> wasmparser::Result<Vec<String>> {
    let map = |kind: String, map: NameMap<'_>| -> wasmparser::Result<Vec<String>> {
        let names = map.into_iter();
        names
            .map(|n| n.map(|n| format!("{kind} {} {}", n.index, n.name)))
            .collect()
    };
    let indirect = |kind: &str, maps: IndirectNameMap<'_>| {
        let mut lines = Vec::new();
        for of in maps {
            let of = of?;
            lines.extend(map(format!("{kind} {}", of.index), of.names)?);
        }
        Ok(lines)
    };
    match name {
        Name::Module { name, .. } => Ok(vec![format!("module {name}")]),
        Name::Function(names) => map("function".into(), names),
        Name::Local(names) => indirect("local", names),
        Name::Label(names) => indirect("label", names),
        Name::Type(names) => map("type".into(), names),
        Name::Table(names) => map("table".into(), names),
        Name::Memory(names) => map("memory".into(), names),
        Name::Global(names) => map("global".into(), names),
        // Segments may be gone or renumbered.
        Name::Element(_) | Name::Data(_) => Ok(Vec::new()),
        Name::Field(names) => indirect("field", names),
        Name::Tag(names) => map("tag".into(), names),
        Name::Unknown { ty, data, .. } => Ok(vec![format!("subsection {ty} {data:?}")]),
    }
}

/// Nothing is in the output that serves no purpose.
fn assert_no_waste(what: &str, before: &Sections<'_>, after: &Sections<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for (id, _, contents) in &after.all {
        if *id == CUSTOM {
            continue;
        }
        assert_ne!(*id, START, "{what}: the start function runs again");
        assert!(seen.insert(*id), "{what}: two sections with the id {id}");
        let is_empty = |contents: &[u8]| contents[0] == 0;
        let mut old = before.all.iter().filter(|(old, ..)| old == id);
        assert!(
            !is_empty(contents) || old.any(|(_, _, contents)| is_empty(contents)),
            "{what}: a section {id} without items, which the input does not have so"
        );
        assert!(
            *id != DATA_COUNT || before.has_data_count,
            "{what}: a data count that the input does not have"
        );
    }
    if !after.has_data_count {
        let empty = after
            .data
            .iter()
            .any(|(passive, len)| !passive && *len == 0);
        assert!(!empty, "{what}: an active data segment without bytes");
    }
}

/// Items for the end of a section.
#[derive(Default)]
pub struct Items {
    pub count: u32,
    pub bytes: Vec<u8>,
}

impl Items {
    pub fn push(&mut self, item: &impl Encode) {
        item.encode(&mut self.bytes);
        self.count += 1;
    }
}

/// A module with more items in some of its sections. `None` where one of them is missing.
pub fn append(wasm: &[u8], items: &BTreeMap<u8, Items>) -> Option<Vec<u8>> {
    let mut out = wasm[..8].to_vec();
    let mut appended = 0;
    for (id, _, contents) in sections(wasm).all {
        out.push(id);
        let Some(items) = items.get(&id) else {
            contents.encode(&mut out);
            continue;
        };
        appended += 1;
        let mut reader = BinaryReader::new(contents, 0);
        let count = reader.read_var_u32().unwrap();
        let mut section = Vec::new();
        (count + items.count).encode(&mut section);
        section.extend_from_slice(&contents[reader.original_position()..]);
        section.extend_from_slice(&items.bytes);
        section.as_slice().encode(&mut out);
    }
    (appended == items.len()).then_some(out)
}
