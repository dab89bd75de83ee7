//! One run of wizer with this process's own standard streams, for `tests/tiers.rs`, which looks
//! at it from outside.
//!
//!     tiers MODULE RESULTS [OPTION VALUE]...
//!
//! What came of the run goes to files in the directory RESULTS.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::json;
use wizer::{Engine, Error, Interrupt, Phase, Wizer};

/// The status of a process that did not come to an end.
const STUCK: i32 = 99;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(120));
        std::process::exit(STUCK)
    });

    let mut args = std::env::args().skip(1);
    let mut next = || args.next();
    let module = std::fs::read(next().ok_or("no module")?)?;
    let results = PathBuf::from(next().ok_or("no directory for the results")?);

    let attempts = Arc::new(Mutex::new(0));
    let count = attempts.clone();
    let (begun, begins) = mpsc::channel();
    let mut begins = Some(begins);
    let mut wizer = Wizer::new();
    wizer
        .cache(wizer::CacheLocation::Off)
        .on_progress(move |phase| {
            if phase == Phase::Initialize {
                *count.lock().unwrap() += 1;
                // Nobody may be waiting for it.
                let _ = begun.send(());
            }
        })
        .arg("guest")
        .arg("--flag")
        .env("COLOR", "green");
    wizer.allow_wasi(true)?;
    let mut keeps_rest = false;
    while let Some(option) = next() {
        let value = next().ok_or("an option without a value")?;
        match option.as_str() {
            "engine" => drop(wizer.engine(Engine::from_name(&value)?)),
            "leave-at" => drop(wizer.leave_at(value.parse()?)),
            "dir" => drop(wizer.map_dir("/", value)),
            "readonly-dir" => drop(wizer.map_dir_readonly("/", value)),
            "timeout" => drop(wizer.timeout(Duration::from_millis(value.parse()?))),
            "max-memory" => drop(wizer.max_memory(value.parse()?)),
            "max-segments" => drop(wizer.max_segments(value.parse()?)),
            "capture" => drop(wizer.capture_output()),
            // Whether what the guest left unread on standard input is among the results.
            "rest" => keeps_rest = true,
            "abort" => {
                let interrupt = Arc::new(Interrupt::default());
                wizer.interrupt(interrupt.clone());
                let begins = begins.take().ok_or("one abort is enough")?;
                std::thread::spawn(move || {
                    let _ = begins.recv();
                    match value.parse() {
                        Ok(ms) => std::thread::sleep(Duration::from_millis(ms)),
                        // Whoever holds the other end of standard input says when.
                        Err(_) => drop(std::io::stdin().read(&mut [0])),
                    }
                    interrupt.abort();
                });
            }
            _ => return Err(format!("what is `{option}`?").into()),
        }
    }

    let mut told = match wizer.snapshot(&module) {
        Ok(outcome) => {
            std::fs::write(results.join("output.wasm"), &outcome.wasm)?;
            let mut report = serde_json::to_value(&outcome.report)?;
            // Who ran it, and how long that took.
            let fields = report.as_object_mut().ok_or("a report is an object")?;
            let engine = fields.remove("engine").ok_or("no engine")?;
            fields.remove("phases").ok_or("no phases")?;
            json!({
                "engine": engine["name"],
                "reason": engine["reason"],
                "report": report,
                "stdout": outcome.stdout,
                "stderr": outcome.stderr,
            })
        }
        Err(error) => failure(&error),
    };
    told["attempts"] = json!(*attempts.lock().unwrap());
    if keeps_rest {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest)?;
        told["rest"] = json!(rest);
    }
    std::fs::write(results.join("told.json"), told.to_string())?;
    Ok(())
}

/// Everything that an error says.
fn failure(error: &Error) -> serde_json::Value {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let frames = match error {
        Error::Trap(trap) => trap.frames.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    json!({ "code": error.code(), "error": text, "frames": frames })
}
