use std::rc::Rc;
use wizer::{Wizer, wasmtime::Linker};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input = r#"
        (module
          (import "foo" "bar" (func $bar (param i32) (result i32)))
          (global $n (mut i32) (i32.const 41))
          (func (export "wizer.initialize") (global.set $n (call $bar (global.get $n))))
          (func (export "n") (result i32) (global.get $n)))
    "#;
    let output = Wizer::new()
        .make_linker(Some(Rc::new(|engine| {
            let mut linker = Linker::new(engine);
            linker.func_wrap("foo", "bar", |x: i32| x + 1)?;
            Ok(linker)
        })))?
        .run(input.as_bytes())?;
    std::fs::write("forty-two.wasm", output)?;
    Ok(())
}
