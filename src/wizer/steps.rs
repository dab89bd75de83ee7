//! The steps of a run on an engine: instantiate everything, and later read the state.

use super::REACTOR_INIT;
use super::facts::Written;
use super::modules::{Modules, Source, shares};
use super::plan::Plan;
use crate::engine::{Engine, InstanceId, Live, Prepared};
use crate::error::Error;
use crate::options::{Phase, PreloadCall};
use crate::report::Clock;
use crate::rewrite::rewrite;
use crate::snapshot::references::Functions;
use crate::snapshot::{Baseline, Found, Origin, Snapshot, State};

/// The instances of a run, each with its state before any of its code ran.
pub struct Run {
    pub main: InstanceId,
    origin: Origin,
    preloads: Vec<(InstanceId, Baseline)>,
}

impl Run {
    /// The instance of a preloaded module.
    pub fn preloaded(&self, position: usize) -> InstanceId {
        self.preloads[position].0
    }
}

/// Instantiates everything: preloaded modules with their own initialization, and the module
/// with its start function.
pub fn instantiate(
    engine: &mut dyn Engine,
    modules: &Modules<'_>,
    calls: &[PreloadCall],
) -> Result<Run, Error> {
    let mut preloaded = Vec::new();
    let make_calls = |engine: &mut dyn Engine, preloaded: &[InstanceId]| {
        let own = preloaded.len().checked_sub(modules.provided());
        let calls = calls.iter().filter(|call| Some(call.after) == own);
        calls.into_iter().try_for_each(|call| {
            let position = modules.callable(&call.module, &call.export, &call.args)?;
            let Some(instance) = preloaded.get(position) else {
                return Err(Error::option(format!(
                    "`{}` is to be called before it is preloaded",
                    call.module
                )));
            };
            engine
                .call(*instance, &call.export, &call.export, &call.args)
                .map(drop)
                .map_err(|e| e.in_preload(&call.module))
        })
    };
    make_calls(engine, &preloaded)?;
    for (position, name, prepared) in modules.preloads() {
        let instance = preload(engine, position, prepared, name).map_err(|e| e.in_preload(name))?;
        preloaded.push(instance);
        make_calls(engine, &preloaded)?;
    }
    let mut found = Found::default();
    if let Some((position, observer)) = modules.observer() {
        let instance = engine.instantiate(position, None)?;
        found = Found::capture(&mut live(engine, instance, observer), &observer.module)?;
    }
    let main = engine.instantiate(modules.main_position(), None)?;

    // After instantiation, as the output's instantiation repeats what it does to imports.
    let mut preloads = Vec::new();
    for (instance, (_, _, prepared)) in preloaded.into_iter().zip(modules.preloads()) {
        let mut live = live(engine, instance, prepared);
        let baseline = Baseline::capture_all(&mut live, &prepared.module, &prepared.code)?;
        preloads.push((instance, baseline));
    }
    let prepared = modules.main();
    let mut before = live(engine, main, prepared);
    let baseline = Baseline::capture(&mut before, &prepared.module, &prepared.code)?;
    start(engine, main, prepared)?;
    Ok(Run {
        main,
        origin: Origin { found, baseline },
        preloads,
    })
}

/// Instantiates a module to import from, and runs its own initialization.
fn preload(
    engine: &mut dyn Engine,
    position: usize,
    prepared: &Prepared<'_>,
    name: &str,
) -> Result<InstanceId, Error> {
    let instance = engine.instantiate(position, Some(name))?;
    start(engine, instance, prepared)?;
    if let Some(export) = prepared.module.export(REACTOR_INIT)
        && prepared.module.is_initializer(export)
    {
        engine.call(instance, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
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
        names: &prepared.code.names,
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
fn functions(
    engine: &mut dyn Engine,
    run: &Run,
    modules: &Modules<'_>,
) -> Result<Functions, Error> {
    let mut functions = Functions::default();
    let mut read = |instance, prepared: &Prepared<'_>| match prepared.code.functions.is_empty() {
        true => Ok(Vec::new()),
        false => live(engine, instance, prepared).functions(),
    };
    let main = modules.main();
    for (index, reference) in main.code.functions.iter().zip(read(run.main, main)?) {
        functions.add(reference, *index);
    }
    let own = modules.functions();
    for ((instance, _), (position, _, prepared)) in run.preloads.iter().zip(modules.preloads()) {
        let references = read(*instance, prepared)?;
        for (index, reference) in prepared.code.functions.iter().zip(references) {
            if let Some(index) = own.get(&modules.identity(position, *index)) {
                functions.add(reference, *index);
            }
        }
    }
    Ok(functions)
}

/// The output does not carry preloaded modules, so their own state must be what it was. What they
/// share with the module is written with that.
fn check_preloads(engine: &mut dyn Engine, run: &Run, modules: &Modules<'_>) -> Result<(), Error> {
    let main = &modules.main().module;
    for ((instance, baseline), (position, name, prepared)) in
        run.preloads.iter().zip(modules.preloads())
    {
        // What the caller provides is imported by others, where a change of it is noticed.
        if modules.is_provided(position) {
            continue;
        }
        let shared = |kind, index| {
            let source = modules.source(position, kind, index);
            matches!(source, Source::Module(..)) && modules.is_imported(&source, kind)
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
