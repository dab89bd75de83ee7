use wizer::Wizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input = std::fs::read("primes.wasm")?;
    let output = Wizer::new().init_func("wizer.initialize").run(&input)?;
    std::fs::write("primes.initialized.wasm", output)?;
    Ok(())
}
