//! A library with a regular expression that is compiled when it is initialized.

use std::sync::Mutex;

use regex::Regex;

static DATE: Mutex<Option<Regex>> = Mutex::new(None);

#[export_name = "wizer.initialize"]
pub extern "C" fn initialize() {
    *DATE.lock().unwrap() = Regex::new(r"^\d{4}-\d{2}-\d{2}$").ok();
}

/// How many of some texts are dates.
#[export_name = "matches"]
pub extern "C" fn matches() -> u32 {
    const TEXTS: [&str; 4] = ["2026-01-31", "2026-1-31", "x2026-01-31", "0000-00-00"];
    match &*DATE.lock().unwrap() {
        Some(date) => TEXTS.iter().filter(|text| date.is_match(text)).count() as u32,
        None => 0,
    }
}
