use wizer::Wizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input = std::fs::read("primes.wasm")?;
    let output = Wizer::new()
        .allow_wasi(true)?
        .func_rename("_start", "wizer.resume")
        .run(&input)?;
    std::fs::write("primes.initialized.wasm", output)?;
    Ok(())
}
