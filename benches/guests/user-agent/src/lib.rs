//! Tells browsers and devices by the regular expressions of the npm package `uap-core`, which are
//! compiled when it is initialized.

use std::sync::Mutex;

use regex::Regex;
use serde_yaml::Value;

/// As many as the benchmark is about.
const COUNT: usize = 600;

static EXPRESSIONS: Mutex<Vec<Regex>> = Mutex::new(Vec::new());

#[export_name = "wizer.initialize"]
pub extern "C" fn initialize() {
    let parsers: Value = serde_yaml::from_str(include_str!("../../../node_modules/uap-core/regexes.yaml")).unwrap();
    let list = |name: &str| parsers[name].as_sequence().unwrap().iter();
    let all = list("user_agent_parsers").chain(list("device_parsers"));
    // The syntax of `regex` wants no `\/` and the like to be escaped.
    let sources = all.map(|parser| parser["regex"].as_str().unwrap().replace("\\/", "/").replace("\\!", "!"));
    let expressions = sources.take(COUNT).map(|source| Regex::new(&source).unwrap());
    *EXPRESSIONS.lock().unwrap() = expressions.collect();
}

/// How many of the expressions match a browser's name for itself.
#[export_name = "matches"]
pub extern "C" fn matches() -> u32 {
    const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let expressions = EXPRESSIONS.lock().unwrap();
    expressions.iter().filter(|expression| expression.is_match(AGENT)).count() as u32
}
