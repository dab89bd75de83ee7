//! Each phase of a run by itself: `cargo bench --features bench --bench phases`.
//!
//! With `fastly.wasm` of the npm package `@fastly/js-compute` where that is installed
//! (`npm ci --ignore-scripts` in this directory), else with the modules in `guests/`.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wizer::phases;

/// The modules, by name.
fn modules() -> Vec<(&'static str, Vec<u8>)> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let places = [
        ("regex", "guests/regex.wasm"),
        ("user-agent", "guests/user-agent.wasm"),
        ("fastly", "node_modules/@fastly/js-compute/fastly.wasm"),
    ];
    let read = |(name, place)| Some((name, std::fs::read(benches.join(place)).ok()?));
    places.into_iter().filter_map(read).collect()
}

/// Memories of 48 MB, by what is in them.
fn memories() -> Vec<(&'static str, Vec<u8>)> {
    const LEN: usize = 48 << 20;
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut words = |of: &dyn Fn(u64) -> u64| -> Vec<u8> {
        (0..LEN / 8)
            .flat_map(|_| of(random()).to_le_bytes())
            .collect()
    };
    vec![
        ("zeros", vec![0; LEN]),
        ("dense", words(&|random| random | 0x0101_0101_0101_0101)),
        // Small numbers and pointers, as a heap has them.
        (
            "heap",
            words(&|random| random % 0x0100_0000 * (random >> 63)),
        ),
    ]
}

fn code(criterion: &mut Criterion) {
    for (name, wasm) in modules() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(wasm.len() as u64));
        group.bench_function("parse", |b| b.iter(|| phases::parse(black_box(&wasm))));
        group.bench_function("validate", |b| b.iter(|| phases::validate_all(&wasm)));
        let parsed = phases::parse(&wasm);
        group.bench_function("instrument", |b| b.iter(|| parsed.instrument()));
        if name == "regex" {
            let mut wizer = wizer::Wizer::new();
            wizer
                .allow_wasi(true)
                .expect("it is allowed")
                .inherit_stdio(false);
            for engine in ["interpreter", "baseline", "optimizing"] {
                wizer.engine(wizer::Engine::from_name(engine).expect("an engine"));
                wizer.cache(wizer::CacheLocation::Off);
                let id = BenchmarkId::new("run", engine);
                group.bench_function(id, |b| b.iter(|| wizer.run(&wasm).expect("it runs")));
            }
        }
        group.finish();
    }
}

fn state(criterion: &mut Criterion) {
    let module = wat::parse_str("(module (memory 768))").expect("a module");
    let parsed = phases::parse(&module);
    for (name, memory) in memories() {
        let mut group = criterion.benchmark_group(format!("48 MB of {name}"));
        group.throughput(Throughput::Bytes(memory.len() as u64));
        group.bench_function("scan", |b| b.iter(|| phases::scan(black_box(&memory))));
        group.bench_function("plan", |b| {
            b.iter(|| phases::plan_segments(black_box(&memory)))
        });
        let planned = phases::planned(&memory);
        group.bench_function("rewrite", |b| b.iter(|| parsed.rewrite(&planned)));
        group.bench_function("memcpy, for comparison", |b| b.iter(|| memory.clone()));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2));
    targets = code, state
}
criterion_main!(benches);
