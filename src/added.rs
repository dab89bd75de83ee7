//! What is added to a module: items behind those that a section has, and functions behind those of
//! the module. Bodies that are there stay where they are, but for a count that may be longer.

use wasm_encoder::{Encode, ExportKind, Function, Instruction};

use crate::module::{Module, section};
use crate::splice::Splice;

/// The items appended to one section.
#[derive(Default)]
pub struct Items {
    pub count: u32,
    pub bytes: Vec<u8>,
}

impl Items {
    pub fn push(&mut self, item: &impl Encode) {
        item.encode(&mut self.bytes);
        self.count += 1;
    }

    pub fn export(&mut self, name: &str, kind: ExportKind, index: u32) {
        name.encode(&mut self.bytes);
        kind.encode(&mut self.bytes);
        index.encode(&mut self.bytes);
        self.count += 1;
    }
}

/// The functions that are added.
pub struct Functions {
    next: u32,
    types: Items,
    bodies: Items,
}

impl Functions {
    pub fn new(module: &Module<'_>) -> Functions {
        Functions {
            next: module.functions.len(),
            types: Items::default(),
            bodies: Items::default(),
        }
    }

    /// Adds a function of the type of this index. Returns its own index.
    pub fn push(&mut self, ty: u32, body: &[Instruction<'_>]) -> u32 {
        let mut function = Function::new([]);
        for instruction in body {
            function.instruction(instruction);
        }
        function.instruction(&Instruction::End);
        self.types.push(&ty);
        self.bodies.push(&function);
        self.next += 1;
        self.next - 1
    }

    /// Writes them behind those of the module.
    pub fn write(&self, splice: &mut Splice<'_>) {
        splice.append(section::FUNCTION, self.types.count, &self.types.bytes);
        splice.append(section::CODE, self.bodies.count, &self.bodies.bytes);
    }
}
