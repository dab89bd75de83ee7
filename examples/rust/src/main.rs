//! A search engine for the texts in `docs/`:
//!
//! ```text
//! $ search the moon and the tide
//! 0.301  docs/tides.txt  Why the sea rises and falls
//! ```
//!
//! The texts are read and indexed when wizer runs. The program that comes out
//! holds the index and opens no file.

mod index;
mod wizer;

use index::Index;
use std::sync::{Mutex, MutexGuard};
use std::{env, fs, io};

wizer::command!(init, main);

const FOLDER: &str = "docs";

static INDEX: Mutex<Option<Index>> = Mutex::new(None);

fn init() {
    if let Err(error) = build_index() {
        // A panic traps, and so becomes an error of the build.
        panic!("{FOLDER}: {error}");
    }
}

fn build_index() -> io::Result<()> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".txt") {
            let path = format!("{FOLDER}/{name}");
            let text = fs::read_to_string(&path)?;
            texts.push((path, text));
        }
    }
    // The order in a folder differs from machine to machine.
    texts.sort();
    *index() = Some(Index::new(texts));
    Ok(())
}

fn index() -> MutexGuard<'static, Option<Index>> {
    // Nothing panics while it holds the lock and lives on: panics abort.
    INDEX.lock().unwrap()
}

fn main() {
    if index().is_none() {
        init(); // nobody ran wizer on this module
    }
    let index = index();
    let index = index.as_ref().expect("`init` leaves an index");

    let query = env::args().skip(1).collect::<Vec<_>>().join(" ");
    if query.is_empty() {
        println!("{} documents, {} words", index.documents(), index.words());
        return;
    }
    for (score, document) in index.search(&query) {
        println!("{:.3}  {}  {}", score, document.name, document.title);
    }
}
