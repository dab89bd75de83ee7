//! The command line, once for the native program and for `npx wizer`.

mod progress;
mod report;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::engine::HostEngine;
use crate::error::Error;
use crate::host::stdio::{Standard, write_all};
use crate::host::stub::{Pattern, Stub};
use crate::invoke::Invocation;
use crate::options::{self, CacheLocation, Dir, KeepInitFunc, Options, Preload, PreloadSource};
use crate::report::Report;
use crate::wizer::{Failure, Outcome, Wizer};

/// Pre-initialize a WebAssembly module: run its initialization function now, and write a module
/// that is already initialized.
#[derive(Parser, Debug)]
#[command(
    name = "wizer",
    version,
    about = "Pre-initialize a WebAssembly module",
    long_about = "Pre-initialize a WebAssembly module: instantiate it, run its initialization \
                  function, and write a module whose memories and globals already hold the \
                  initialized state. Whoever runs that module does not wait for the set-up.",
    after_help = "Example: wizer app.wasm -o app.init.wasm --allow-wasi\n\
                  More options: wizer --help",
    after_long_help = "EXIT STATUS: 0 when the output was written; 1 on any error, and then an \
                       existing output is as it was; 2 for options that make no sense.\n\n\
                       ENVIRONMENT: NO_COLOR switches colours off."
)]
struct Args {
    /// The module, in the binary or the text format [default: standard input, as for `-`]
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,

    /// Where to write the initialized module [default: standard output, as for `-`]
    ///
    /// A file is replaced as a whole once everything has gone well, and may be the input.
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<PathBuf>,

    /// The exported function that initializes the module
    ///
    /// It takes no parameters and returns nothing. By default, `wizer.initialize` or else
    /// `wizer-initialize`. Instantiation, the start function and a reactor's `_initialize` come
    /// before it, once.
    #[arg(short = 'f', long, value_name = "NAME")]
    init_func: Option<String>,

    /// Call an export before the initialization function, or instead where there is none
    ///
    /// May be given several times; the calls come in their order, after a reactor's
    /// `_initialize`. Arguments are numbers as the WebAssembly text format writes them, and `null`
    /// for a reference: `--invoke 'load(1, 2.5)'`. A name with other characters than these stands
    /// in quotation marks: `--invoke '"my func"(1)'`.
    #[arg(long, value_name = "NAME(ARGS)", value_parser = Invocation::parse)]
    invoke: Vec<Invocation>,

    /// Rename an export of the output, overwriting one that has the new name
    ///
    /// May be given several times; every name at most once on each side. Typical:
    /// `-r _start=wizer.resume`.
    #[arg(
        short,
        long = "rename-func",
        visible_alias = "func-rename",
        value_name = "NEW=OLD",
        value_parser = rename,
    )]
    rename_func: Vec<(String, String)>,

    /// Keep the initialization function exported, or one that does nothing: true, false or empty
    /// [default: false]
    ///
    /// With `empty`, the export stays, and so does a reactor's `_initialize`, and a call of them
    /// does nothing: for hosts that make this call themselves.
    #[arg(long, value_name = "KEEP", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    keep_init_func: Option<KeepInitFunc>,

    /// Let the initialization call WASI
    ///
    /// What it reads (random numbers, clocks, the environment) becomes part of the output, the
    /// same in every instance of it. `--verbose` counts such reads.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    allow_wasi: Option<bool>,

    /// Let the program end itself with status 0, which only ends the call [default: false]
    ///
    /// For commands whose `_start` ends like that (TinyGo, Go): `-f _start --allow-exit`. What is
    /// snapshotted is the state at that moment. Any other status is an error always.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    allow_exit: Option<bool>,

    /// Let a number or `trap` stand in for imports that nothing provides
    ///
    /// `*` in a name stands for anything: `--stub 'env.*'` or `--stub 'env.*'=0` for functions that
    /// return 0 (and memories, tables and globals as small as they may be), `--stub env.abort=trap`
    /// for one whose call is an error. May be given several times; where several fit, the one that
    /// says most wins.
    #[arg(long, value_name = "MODULE.NAME[=VALUE]", value_parser = stub)]
    stub: Vec<(Pattern, Stub)>,

    /// Give WASI the process's standard input, output and error [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    inherit_stdio: Option<bool>,

    /// Give WASI the process's environment variables [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    inherit_env: Option<bool>,

    /// Set an environment variable for WASI
    #[arg(long, hide_short_help = true, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Add an argument for WASI; the first is the program's name
    #[arg(
        long,
        hide_short_help = true,
        value_name = "ARG",
        allow_hyphen_values = true
    )]
    arg: Vec<String>,

    /// Let WASI use a directory, under its own name or another
    ///
    /// As in wasmtime, the host's directory stands first; in --mapdir, the guest's does.
    #[arg(long, value_name = "DIR[::GUEST]", value_parser = OsStringValueParser::new().try_map(dir))]
    dir: Vec<(String, PathBuf)>,

    /// Let WASI use the host's directory HOST under the name GUEST
    #[arg(long, value_name = "GUEST::HOST", value_parser = map_dir)]
    mapdir: Vec<(String, PathBuf)>,

    /// As --mapdir, and WASI can change nothing in it
    #[arg(long, hide_short_help = true, value_name = "GUEST::HOST", value_parser = map_dir)]
    mapdir_readonly: Vec<(String, PathBuf)>,

    /// Instantiate the module in FILE first, to be imported from as NAME
    ///
    /// The output still imports from NAME. It does not carry the preloaded module's state, and
    /// a change of that is an error.
    #[arg(long, value_name = "NAME=FILE", value_parser = preload)]
    preload: Vec<(String, PathBuf)>,

    /// Let the state of preloaded modules change, although the output does not carry it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    allow_preload_changes: Option<bool>,

    /// Who runs the module: auto, interpreter, baseline, optimizing or host
    ///
    /// `interpreter` begins at once (wasmi), `baseline` compiles fast (Winch), `optimizing` makes
    /// fast code (Cranelift), `host` is the engine of Node (V8), where wizer was started by that. `auto`
    /// begins with the interpreter, or with V8 where a module is large, and goes over to V8 or compiled
    /// code where that pays; nothing that the module does to the outside happens twice.
    #[arg(long, hide_short_help = true, value_name = "ENGINE", default_value = "auto", value_parser = engine)]
    engine: options::Engine,

    /// Neither use nor keep compiled code of other runs
    #[arg(long, hide_short_help = true, conflicts_with = "cache_dir")]
    no_cache: bool,

    /// Where to keep compiled code for other runs [default: the user's cache directory]
    #[arg(long, hide_short_help = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,

    /// End with an error when the initialization takes longer, in milliseconds [default: none]
    ///
    /// Compiling does not count. Where compiled code takes over, it has that time again.
    #[arg(long, hide_short_help = true, value_name = "MS", value_parser = whole)]
    timeout: Option<u64>,

    /// End with an error when memories, and tables at 8 bytes a slot, grow beyond this together, in bytes [default: none]
    #[arg(long, hide_short_help = true, value_name = "BYTES", value_parser = whole)]
    max_memory: Option<u64>,

    /// The most data segments that the output may have [default: 100000, the limit of engines]
    ///
    /// Fewer segments make a larger file: those with the least zeros between them become one.
    #[arg(long, hide_short_help = true, value_name = "COUNT")]
    max_segments: Option<usize>,

    /// Print what happened, as a table on standard error
    #[arg(short, long)]
    verbose: bool,

    /// Write what happened to a file, or for `-` to standard output, as JSON
    #[arg(long, hide_short_help = true, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Make relaxed SIMD instructions give the same results on every machine [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    relaxed_simd_deterministic: Option<bool>,

    /// Accept modules that use multi-memory [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_multi_memory: Option<bool>,

    /// Accept modules that use multi-value [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_multi_value: Option<bool>,

    /// Accept modules that use bulk memory operations [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_bulk_memory: Option<bool>,

    /// Accept modules that use SIMD [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_simd: Option<bool>,

    /// Accept modules that use relaxed SIMD [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_relaxed_simd: Option<bool>,

    /// Accept modules that use reference types [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    wasm_reference_types: Option<bool>,
}

/// Reads a rename in the form `new=old`.
fn rename(text: &str) -> Result<(String, String), Error> {
    let mut halves = text.trim().split('=').map(str::trim);
    match (halves.next(), halves.next(), halves.next()) {
        (Some(new), Some(old), None) if !new.is_empty() && !old.is_empty() => {
            Ok((new.into(), old.into()))
        }
        _ => Err(Error::option(format!(
            "the rename `{text}` must have the form `new=old` with exactly one `=`"
        ))),
    }
}

/// Reads a directory, in the form `host::guest` where it has two names.
fn dir(path: OsString) -> Result<(String, PathBuf), Error> {
    let text = path.to_string_lossy();
    let alone = Ok((text.to_string(), PathBuf::from(&path)));
    let Some((host, guest)) = text.split_once("::") else {
        return alone;
    };
    let is_dir = |path: &str| Path::new(path).is_dir();
    match (Path::new(&path).is_dir(), is_dir(host), is_dir(guest)) {
        (true, _, _) => alone,
        (_, true, _) if !guest.is_empty() => Ok((guest.into(), host.into())),
        (_, false, true) => Err(Error::option(format!(
            "`{host}` is no directory; `--dir {guest}::{host}` has the host's directory first, and \
             `--mapdir {host}::{guest}` the guest's"
        ))),
        _ => Err(Error::option(format!(
            "`{host}` is no directory; the directory `{text}` must have the form `host` or \
             `host::guest`"
        ))),
    }
}

/// Reads a directory mapping in the form `guest::host`.
fn map_dir(text: &str) -> Result<(String, PathBuf), Error> {
    match text.split_once("::") {
        Some((guest, host)) if !guest.is_empty() && !host.is_empty() => {
            Ok((guest.into(), host.into()))
        }
        _ => Err(Error::option(format!(
            "the directory mapping `{text}` must have the form `guest::host`"
        ))),
    }
}

/// Reads a preload in the form `name=file`.
fn preload(text: &str) -> Result<(String, PathBuf), Error> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.into(), file.into()))
        }
        _ => Err(Error::option(format!(
            "the preload `{text}` must have the form `name=file`"
        ))),
    }
}

/// Reads a stub in the form `module.name` or `module.name=value`.
fn stub(text: &str) -> Result<(Pattern, Stub), Error> {
    let (pattern, stub) = text.rsplit_once('=').unwrap_or((text, "0"));
    Ok((Pattern::parse(pattern)?, Stub::parse(stub)?))
}

fn engine(text: &str) -> Result<options::Engine, Error> {
    options::Engine::from_name(text)
}

/// Reads a number that has its unit already.
fn whole(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| {
        Error::option(format!(
            "`{text}` must be a whole number without a unit, such as 3000"
        ))
    })
}

fn variable(text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(Error::option(format!(
            "the variable `{text}` must have the form `NAME=VALUE`"
        ))),
    }
}

impl Args {
    fn options(&self) -> Options {
        let mut options = Options {
            init_func: self.init_func.clone(),
            keep_init_func: self.keep_init_func.unwrap_or_default(),
            invoke: self.invoke.clone(),
            renames: self.rename_func.clone(),
            allow_preload_changes: self.allow_preload_changes.unwrap_or(false),
            engine: self.engine,
            cache: match (&self.cache_dir, self.no_cache) {
                (Some(directory), _) => CacheLocation::In(directory.clone()),
                (None, true) => CacheLocation::Off,
                (None, false) => CacheLocation::OfUser,
            },
            timeout: self.timeout.map(Duration::from_millis),
            max_memory: self.max_memory,
            max_segments: self.max_segments,
            allow_wasi: self.allow_wasi.unwrap_or(false),
            allow_exit: self.allow_exit.unwrap_or(false),
            ..Options::default()
        };
        for (pattern, stub) in &self.stub {
            options.stubs.push(pattern.clone(), *stub);
        }
        for (name, file) in &self.preload {
            options.preloads.push(Preload {
                name: name.clone(),
                source: PreloadSource::File(file.clone()),
            });
        }
        let wasi = &mut options.wasi;
        wasi.inherit_env = self.inherit_env.unwrap_or(false);
        wasi.env = self.env.iter().cloned().collect();
        wasi.args = self.arg.clone();
        if !self.inherit_stdio.unwrap_or(true) {
            wasi.stdin = options::Stdin::Ignore;
            wasi.stdout = options::Stdout::Ignore;
            wasi.stderr = options::Stdout::Ignore;
        }
        for (mappings, readonly) in [
            (&self.dir, false),
            (&self.mapdir, false),
            (&self.mapdir_readonly, true),
        ] {
            wasi.dirs.extend(mappings.iter().map(|(guest, host)| Dir {
                host: host.clone(),
                guest: guest.clone(),
                readonly,
            }));
        }
        let features = &mut options.features;
        for (given, feature) in [
            (self.wasm_bulk_memory, &mut features.bulk_memory),
            (self.wasm_multi_memory, &mut features.multi_memory),
            (self.wasm_multi_value, &mut features.multi_value),
            (self.wasm_reference_types, &mut features.reference_types),
            (self.wasm_simd, &mut features.simd),
            (self.wasm_relaxed_simd, &mut features.relaxed_simd),
            (
                self.relaxed_simd_deterministic,
                &mut features.relaxed_simd_deterministic,
            ),
        ] {
            if let Some(given) = given {
                *feature = given;
            }
        }
        options
    }
}

/// Runs the program with these arguments (its own name not among them), and returns its exit
/// status.
///
/// ```
/// assert_eq!(wizer::cli::run(["--version"]), 0);
/// ```
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> u8 {
    run_with(args, None)
}

/// As [`run`], with an engine of the host.
pub(crate) fn run_with<A: Into<OsString>>(
    args: impl IntoIterator<Item = A>,
    host_engine: Option<Arc<dyn HostEngine>>,
) -> u8 {
    let command = Args::command().color(match colours() {
        true => clap::ColorChoice::Always,
        false => clap::ColorChoice::Never,
    });
    let args = join_booleans(&command, args.into_iter().map(Into::into).collect());
    let parsed = command
        .try_get_matches_from(std::iter::once("wizer".into()).chain(args))
        .and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let (to, status) = match error.use_stderr() {
                true => (Standard::Err, 2),
                false => (Standard::Out, 0),
            };
            let text = match colours() {
                true => error.render().ansi().to_string(),
                false => error.render().to_string(),
            };
            // Nobody is left to be told that they could not be told.
            let _ = write_all(to, text.as_bytes(), None);
            return status;
        }
    };
    match work(&args, host_engine) {
        Ok(()) => 0,
        Err(error) => {
            let _ = write_all(
                Standard::Err,
                report::error(&error, colours()).as_bytes(),
                None,
            );
            1
        }
    }
}

/// Whether standard error shows colours.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Makes `--flag true` into `--flag=true` for flags with an optional boolean, so that a file
/// name may follow a bare `--flag`.
fn join_booleans(command: &clap::Command, args: Vec<OsString>) -> Vec<OsString> {
    let is_boolean = |arg: &OsString| {
        let Some(long) = arg.to_str().and_then(|a| a.strip_prefix("--")) else {
            return false;
        };
        command.get_arguments().any(|a| {
            a.get_long() == Some(long)
                && a.is_require_equals_set()
                && matches!(a.get_action(), ArgAction::Set)
        })
    };
    let mut out: Vec<OsString> = Vec::with_capacity(args.len());
    for arg in args {
        match out.last_mut() {
            Some(last) if (arg == "true" || arg == "false") && is_boolean(last) => {
                last.push("=");
                last.push(arg);
            }
            _ => out.push(arg),
        }
    }
    out
}

/// The file that a path names; `None` for `-`, which is a standard stream.
fn named(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| *path != Path::new("-"))
}

fn work(args: &Args, host_engine: Option<Arc<dyn HostEngine>>) -> Result<(), Error> {
    keep_apart(args)?;
    let worked = run_to_output(args, host_engine);
    if let Err(error) = &worked {
        // That error is the one to be told.
        let _ = write_report(args, Err(error));
    }
    worked
}

/// What is written must not be what was read, nor be written twice.
fn keep_apart(args: &Args) -> Result<(), Error> {
    let is_file = |path: &&Path| std::fs::metadata(path).map_or(true, |found| found.is_file());
    let report = args.report.as_deref().and_then(named);
    let Some(report) = report.filter(is_file) else {
        return Ok(());
    };
    let named_input = args.input.as_deref().and_then(named);
    let preloads = args.preload.iter().map(|(_, file)| file.as_path());
    let others = [
        ("the output", args.output.as_deref().and_then(named)),
        ("the input", named_input),
    ];
    let others = others
        .into_iter()
        .filter_map(|(what, path)| Some((what, path?)));
    let preloads = preloads.map(|path| ("a preloaded module", path));
    match others
        .chain(preloads)
        .find(|(_, path)| is_same(path, report))
    {
        Some((what, path)) => Err(Error::option(format!(
            "the report would be written over {what}, `{}`; name another file with --report",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Whether two paths lead to the same place, also where nothing is there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let target = link_target(path);
        target.canonicalize().ok().or_else(|| {
            Some(
                directory_of(&target)
                    .canonicalize()
                    .ok()?
                    .join(target.file_name()?),
            )
        })
    };
    let place_of_one = place(one);
    place_of_one.is_some() && place_of_one == place(other)
}

fn write_report(args: &Args, worked: Result<&Report, &Error>) -> Result<(), Error> {
    let Some(path) = &args.report else {
        return Ok(());
    };
    let json = report::json(worked)?;
    match named(path) {
        Some(path) => write_file(path, "write the report", json.as_ref()),
        None => write_stdout(json.as_ref()),
    }
}

fn run_to_output(args: &Args, host_engine: Option<Arc<dyn HostEngine>>) -> Result<(), Error> {
    let input = args.input.as_deref().and_then(named);
    let output = args.output.as_deref().and_then(named);
    if output.is_none()
        && args
            .report
            .as_deref()
            .is_some_and(|path| named(path).is_none())
    {
        return Err(Error::option(
            "the module and the report cannot both go to standard output; name a file for one \
             with -o or --report",
        ));
    }
    let wasm = read_input(input)?;
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::option(
            "standard output is a terminal, which cannot show a module; name a file with -o",
        ));
    }
    let mut options = args.options();
    options.host_engine = host_engine;
    let guest_writes = options.allow_wasi && options.wasi.stdout == options::Stdout::Inherit;
    let report = args.report.as_deref();
    if [Some(output), report.map(named)]
        .into_iter()
        .flatten()
        .any(|path| path.is_none_or(is_standard_output))
        && guest_writes
    {
        // One of them would damage the other.
        options.wasi.stdout = options::Stdout::StandardError;
    }
    let spinner = progress::Spinner::start(guest_writes);
    options.progress = spinner.progress();
    let result = Wizer::with_options(options).snapshot_or_output(&wasm);
    drop(spinner);
    let Outcome { wasm, report, .. } = result.map_err(|failure| {
        let Failure { error, .. } = *failure;
        error
    })?;
    for warning in &report.warnings {
        let _ = write_all(
            Standard::Err,
            report::warning(warning, colours()).as_bytes(),
            None,
        );
    }
    // A file comes first, so that no output is replaced by a run that fails. What is printed stays.
    let is_printed = args
        .report
        .as_deref()
        .is_some_and(|path| named(path).is_none());
    if !is_printed {
        write_report(args, Ok(&report))?;
    }
    match output {
        Some(path) => write_file(path, "write the output file", &wasm)?,
        None => write_stdout(&wasm)?,
    }
    if is_printed {
        write_report(args, Ok(&report))?;
    }
    if args.verbose {
        let _ = write_all(
            Standard::Err,
            report::table(&report, colours()).as_bytes(),
            None,
        );
    }
    Ok(())
}

fn write_stdout(bytes: &[u8]) -> Result<(), Error> {
    write_all(Standard::Out, bytes, None).map_err(|source| Error::Io {
        action: "write to",
        path: "standard output".into(),
        source,
    })
}

fn read_input(path: Option<&Path>) -> Result<Vec<u8>, Error> {
    match path {
        Some(path) => std::fs::read(path).map_err(|source| Error::Io {
            action: "open the input file",
            path: path.into(),
            source,
        }),
        None => {
            if std::io::stdin().is_terminal() {
                return Err(Error::option(
                    "no module was given: name a file, or pipe a module into standard input \
                     (`wizer --help` tells more)",
                ));
            }
            let mut bytes = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(source) => Err(Error::Io {
                    action: "read",
                    path: "standard input".into(),
                    source,
                }),
            }
        }
    }
}

/// Whether a path is another name of standard output.
fn is_standard_output(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let stdout = id(Path::new("/dev/stdout"));
        stdout.is_some() && stdout == id(path)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// What a path leads to in the end, also where that does not exist yet: a symbolic link stays
/// one, and its target is replaced.
fn link_target(path: &Path) -> PathBuf {
    /// As many links as Linux follows.
    const MAX_LINKS: usize = 40;
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => break,
        }
    }
    target
}

/// The directory that a file is in.
fn directory_of(file: &Path) -> &Path {
    let parent = file.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

/// Replaces a regular file as a whole or not at all; writes to anything else directly.
fn write_file(path: &Path, action: &'static str, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Io {
        action,
        path: path.into(),
        source,
    };
    let metadata = std::fs::metadata(path).ok();
    if metadata.as_ref().is_some_and(|m| !m.is_file()) {
        // A socket cannot be opened by name, and standard output may be one.
        if is_standard_output(path) {
            return write_all(Standard::Out, bytes, None).map_err(failed);
        }
        return std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file: File| file.write_all(bytes))
            .map_err(failed);
    }
    let target = link_target(path);
    let directory = directory_of(&target);
    if !directory.is_dir() {
        // The temporary file's own name would say nothing.
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wizer-").suffix(".tmp");
    #[cfg(unix)]
    {
        // A new file gets what the umask leaves, as any program's output does.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(directory).map_err(failed)?;
    if let Some(metadata) = metadata {
        file.as_file()
            .set_permissions(metadata.permissions())
            .map_err(failed)?;
    }
    file.write_all(bytes).map_err(failed)?;
    file.persist(&target).map_err(|e| failed(e.error))?;
    Ok(())
}
