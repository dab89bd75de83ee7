//! The steps of a run on an engine: instantiate everything, and later read the state.

use std::collections::BTreeMap;

use super::REACTOR_INIT;
use super::facts::Written;
use super::modules::{Modules, Source, shares};
use super::plan::Plan;
use crate::engine::{Engine, InstanceId, Live, Prepared};
use crate::error::Error;
use crate::module::ExternKind;
use crate::options::{Options, Phase, PreloadCall};
use crate::report::Clock;
use crate::rewrite::rewrite;
use crate::snapshot::references::Known;
use crate::snapshot::{Baseline, Found, Origin, Snapshot, State};

/// The instances of a run, each with its state before any of its code ran.
pub struct Run {
    pub main: InstanceId,
    origin: Origin,
    /// The instances of other modules, by their positions. One that trapped is none.
    others: BTreeMap<usize, (InstanceId, Baseline)>,
}

impl Run {
    /// The instance of another module.
    pub fn other(&self, position: usize) -> Option<InstanceId> {
        Some(self.others.get(&position)?.0)
    }

    /// Takes note of the instance of a module that was instantiated later.
    pub fn add(&mut self, position: usize, instance: InstanceId, baseline: Baseline) {
        self.others.insert(position, (instance, baseline));
    }
}

/// Instantiates everything: preloaded modules with their own initialization, and the module
/// with its start function.
pub fn instantiate(
    engine: &mut dyn Engine,
    modules: &Modules<'_>,
    options: &Options,
) -> Result<Run, Error> {
    let preloaded = preload(engine, modules, options)?;
    let mut found = Found::default();
    if let Some((position, observer)) = modules.observer() {
        let instance = engine.instantiate(position)?;
        found = Found::capture(&mut live(engine, instance, observer), &observer.module)?;
    }
    let main = engine.instantiate(modules.main_position())?;

    let prepared = modules.main();
    let mut before = live(engine, main, prepared);
    let baseline = Baseline::capture(&mut before, &prepared.module, &prepared.code)?;
    let mut run = Run {
        main,
        origin: Origin { found, baseline },
        others: BTreeMap::new(),
    };
    // After instantiation, as the output's instantiation repeats what it does to imports.
    for (position, _, prepared) in modules.preloads() {
        if let Some(instance) = preloaded.get(&position) {
            run.add(position, *instance, state_of(engine, *instance, prepared)?);
        }
    }
    start(engine, main, prepared)?;
    Ok(run)
}

/// Everything in an instance that will not be written.
pub fn state_of(
    engine: &mut dyn Engine,
    instance: InstanceId,
    prepared: &Prepared<'_>,
) -> Result<Baseline, Error> {
    let mut live = live(engine, instance, prepared);
    Baseline::capture_all(&mut live, &prepared.module, &prepared.code)
}

/// Instantiates the modules that come before, and makes the calls of them.
fn preload(
    engine: &mut dyn Engine,
    modules: &Modules<'_>,
    options: &Options,
) -> Result<BTreeMap<usize, InstanceId>, Error> {
    let mut preloaded = BTreeMap::new();
    // Where a run may be thrown away, a trap may be the end of it.
    let tolerates = options.tolerate_traps && engine.host().speculation.is_none();
    let tolerate = |result: Result<(), Error>| match result {
        Err(Error::Trap(_)) if tolerates => Ok(()),
        other => other,
    };
    let call = |engine: &mut dyn Engine, preloaded: &BTreeMap<_, _>, call: &PreloadCall| {
        let position = modules.callable(&call.module, &call.export, &call.args)?;
        let Some(instance) = preloaded.get(&position) else {
            return Err(Error::option(format!(
                "`{}` is to be called before it is preloaded",
                call.module
            )));
        };
        let called = engine.call(*instance, &call.export, &call.export, &call.args);
        called.map(drop).map_err(|e| e.in_preload(&call.module))
    };
    let calls_after = |count| {
        let calls = options.preload_calls.iter();
        calls.filter(move |call| call.after == count)
    };
    for made in calls_after(0) {
        tolerate(call(engine, &preloaded, made))?;
    }
    for (position, name, prepared) in modules.preloads() {
        let instance = beside(engine, position, prepared, name);
        let instance = instance.map(|instance| {
            preloaded.insert(position, instance);
        });
        tolerate(instance.map_err(|e| e.in_preload(name)))?;
        if let Some(own) = (position + 1).checked_sub(modules.provided()) {
            for made in calls_after(own) {
                tolerate(call(engine, &preloaded, made))?;
            }
        }
    }
    Ok(preloaded)
}

/// Instantiates a module beside the one that is initialized, runs its own initialization, and lets
/// those after it import from it.
pub fn beside(
    engine: &mut dyn Engine,
    module: usize,
    prepared: &Prepared<'_>,
    name: &str,
) -> Result<InstanceId, Error> {
    let instance = engine.instantiate(module)?;
    start(engine, instance, prepared)?;
    if let Some(export) = prepared.module.export(REACTOR_INIT)
        && prepared.module.is_initializer(export)
    {
        engine.call(instance, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
    engine.register(instance, name)?;
    Ok(instance)
}

/// Runs the start function that instrumentation took out.
fn start(
    engine: &mut dyn Engine,
    instance: InstanceId,
    prepared: &Prepared<'_>,
) -> Result<(), Error> {
    if prepared.module.start.is_some() {
        engine.call(instance, &prepared.code.names.start(), "start", &[])?;
    }
    Ok(())
}

fn live<'e>(
    engine: &'e mut dyn Engine,
    instance: InstanceId,
    prepared: &'e Prepared<'_>,
) -> Live<'e> {
    Live {
        engine,
        instance,
        code: &prepared.code,
    }
}

/// Reads the module's state, and writes the module with it.
pub fn write<'m>(
    engine: &mut dyn Engine,
    run: &Run,
    modules: &'m Modules<'_>,
    plan: &Plan,
    clock: &mut Clock<'_>,
) -> Result<Written<'m>, Error> {
    clock.begin(Phase::Snapshot);
    if !plan.allow_preload_changes {
        check_preloads(engine, run, modules)?;
    }
    let Prepared { module, code } = modules.main();
    let mut live = live(engine, run.main, modules.main());
    let identify = |live: &mut Live<'_>| functions(live.engine, run, modules);
    let (origin, max_segments) = (&run.origin, plan.max_segments);
    let snapshot = Snapshot::capture(&mut live, module, code, origin, max_segments, identify)?;

    clock.begin(Phase::Rewrite);
    let rewritten = rewrite(module, &snapshot, &plan.exports)?;
    // Empty ones stay where instructions name the segments behind them.
    if rewritten.data_segments > plan.max_segments {
        return Err(Error::TooManySegments {
            needed: rewritten.data_segments,
            limit: plan.max_segments,
        });
    }
    Ok(Written::new(module, rewritten, &snapshot, &plan.warnings))
}

/// The functions that references can be of. A function that the module imports has other
/// references where they come from the module that defines it.
fn functions(engine: &mut dyn Engine, run: &Run, modules: &Modules<'_>) -> Result<Known, Error> {
    let mut known = Known::default();
    let mut read = |instance, prepared: &Prepared<'_>| match prepared.code.functions.is_empty() {
        true => Ok(Vec::new()),
        false => live(engine, instance, prepared).functions(),
    };
    let main = modules.main();
    for (index, reference) in main.code.functions.iter().zip(read(run.main, main)?) {
        known.add(reference, *index);
    }
    let own = modules.functions();
    for (position, _, prepared) in modules.others() {
        let Some((instance, _)) = run.others.get(&position) else {
            continue;
        };
        let references = read(*instance, prepared)?;
        for (index, reference) in prepared.code.functions.iter().zip(references) {
            if let Some(index) = own.get(&modules.identity(position, *index)) {
                known.add(reference, *index);
            }
        }
    }
    Ok(known)
}

/// The output does not carry preloaded modules, so their own state must be what it was. What they
/// share with the module is written with that.
fn check_preloads(engine: &mut dyn Engine, run: &Run, modules: &Modules<'_>) -> Result<(), Error> {
    let main = &modules.main().module;
    for (position, name, prepared) in modules.others() {
        let Some((instance, baseline)) = run.others.get(&position) else {
            continue;
        };
        // What the caller provides is imported by others, where a change of it is noticed.
        if modules.is_provided(position) {
            continue;
        }
        let shared = |kind, index| match modules.source(position, kind, index) {
            Source::Module(of, _) if of == modules.main_position() => true,
            // An imported global that changed cannot be written there.
            source @ Source::Module(..) => {
                kind != ExternKind::Global && modules.is_imported(&source, kind)
            }
            Source::Host(..) => false,
        };
        let mut live = live(engine, *instance, prepared);
        baseline
            .check(&mut live, &prepared.module, &prepared.code.names, &shared)
            .map_err(|error| match error {
                Error::Unrepresentable { item, change, .. } => Error::Unrepresentable {
                    item: format!("{item} of the preloaded module `{name}`"),
                    change,
                    help: Some(match shares(main, name) {
                        true => "the output does not carry preloaded modules".into(),
                        false => "the output does not carry preloaded modules; allow it with \
                                  --allow-preload-changes (allowPreloadChanges in JavaScript) if \
                                  the output will find that state in place"
                            .into(),
                    }),
                },
                other => other,
            })?;
    }
    Ok(())
}
