//! Errors, warnings and reports for people and for programs.

use std::error::Error as _;

use comfy_table::{Cell, CellAlignment, Table};

use crate::error::{Error, counted};
use crate::report::Report;

/// An error as it is printed. Tools that spawn the program look for this shape.
pub fn error(error: &Error, colours: bool) -> String {
    let title = match colours {
        true => "\x1b[1;31mError:\x1b[0m",
        false => "Error:",
    };
    let mut text = format!("{title} {error}\n");
    let causes = causes(error);
    if !causes.is_empty() {
        text.push_str("\nCaused by:\n");
    }
    for (i, cause) in causes.iter().enumerate() {
        let (first, indent) = match causes.len() {
            1 => ("    ".to_string(), "    "),
            _ => (format!("{i:>5}: "), "       "),
        };
        text.push_str(&first);
        text.push_str(&cause.replace('\n', &format!("\n{indent}")));
        text.push('\n');
    }
    text
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    if let Error::Trap(trap) = error
        && !trap.frames.is_empty()
    {
        causes.push(trap.backtrace());
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // An error that only passes on another says the same as it.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    causes
}

/// A warning as it is printed.
pub fn warning(text: &str, colours: bool) -> String {
    match colours {
        true => format!("\x1b[1;33mwarning:\x1b[0m {text}\n"),
        false => format!("warning: {text}\n"),
    }
}

/// The report of a run, or the error that ended it, as JSON.
pub fn json(result: Result<&Report, &Error>) -> Result<Vec<u8>, Error> {
    let json = match result {
        Ok(report) => serde_json::to_vec_pretty(report),
        Err(error) => serde_json::to_vec_pretty(&serde_json::json!({
            "error": {
                "code": error.code(),
                "message": error.to_string(),
                "causes": causes(error),
            }
        })),
    };
    let mut json = json.map_err(|e| Error::internal(format!("no JSON: {e}")))?;
    json.push(b'\n');
    Ok(json)
}

/// How wide the longest bar of the chart is, in characters.
const BAR: f64 = 30.0;

/// The report as tables.
pub fn table(report: &Report, colours: bool) -> String {
    let bold = |text: &str| match colours {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => text.to_string(),
    };
    let mut text = String::new();
    let mut section = |title: &str, table: Table| {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&bold(title));
        text.push('\n');
        for line in table.to_string().lines() {
            text.push_str(&format!("  {}\n", line.trim_end()));
        }
    };

    let mut phases = plain();
    let longest = report.phases.iter().map(|p| p.ms).fold(0.001, f64::max);
    for phase in &report.phases {
        phases.add_row(vec![
            Cell::new(phase.phase.name()),
            right(format!("{:.1} ms", phase.ms)),
            Cell::new("█".repeat((phase.ms / longest * BAR).round() as usize)),
        ]);
    }
    let total: f64 = report.phases.iter().map(|p| p.ms).sum();
    phases.add_row(vec![Cell::new("total"), right(format!("{total:.1} ms"))]);
    section(
        &format!(
            "Time, with {} ({})",
            report.engine.name, report.engine.reason
        ),
        phases,
    );

    let mut sizes = plain();
    sizes.add_row(vec![
        Cell::new("module"),
        right(bytes(report.input_bytes)),
        Cell::new("→"),
        right(bytes(report.output_bytes)),
    ]);
    for memory in &report.memories {
        sizes.add_row(vec![
            Cell::new(format!("memory {}", memory.index)),
            right(counted(memory.pages_before, "page")),
            Cell::new("→"),
            right(counted(memory.pages_after, "page")),
            Cell::new(format!(
                "{} in {}",
                bytes(memory.bytes),
                counted(memory.segments, "segment")
            )),
        ]);
    }
    section("Size", sizes);

    if !report.host_calls.is_empty() {
        let mut calls = plain();
        for call in &report.host_calls {
            calls.add_row(vec![
                Cell::new(format!("{}::{}", call.module, call.name)),
                right(format!("{}×", call.calls)),
                Cell::new(if call.stub { "(a stub)" } else { "" }),
            ]);
        }
        section("Asked of the host", calls);
    }
    let baked = report.baked;
    let mut notes = plain();
    for (count, what) in [
        (baked.random, "reads of random numbers"),
        (baked.clock, "reads of a clock"),
        (baked.environment, "reads of the environment"),
    ] {
        if count > 0 {
            notes.add_row(vec![
                right(count.to_string()),
                Cell::new(format!("{what}, now the same in every instance")),
            ]);
        }
    }
    if report.exited {
        notes.add_row(vec![
            right(String::new()),
            Cell::new("the program ended itself, with status 0"),
        ]);
    }
    for global in &report.assumed_globals {
        notes.add_row(vec![
            right(String::new()),
            Cell::new(format!(
                "the value of the imported global `{global}` is assumed from now on"
            )),
        ]);
    }
    for section in &report.dropped_sections {
        notes.add_row(vec![
            right(String::new()),
            Cell::new(format!(
                "the custom section `{section}` was left out: it is no longer true"
            )),
        ]);
    }
    if !notes.is_empty() {
        section("To know", notes);
    }
    text
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A number of bytes with thousands apart.
fn bytes(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{out} bytes")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_234_567), "1,234,567 bytes");
    }
}
