//! Word errors in percent, of lines with what was said, a tab, and what was heard, from stdin.

use std::io::stdin;

use vllm_speech::wer::WordErrors;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut all = WordErrors::default();
    for line in stdin().lines() {
        let line = line?;
        let (said, heard) = line.split_once('\t').ok_or("a line without a tab")?;
        let errors = WordErrors::between(said, heard);
        if errors.errors() > 0 {
            eprintln!("{said}\n  {heard}");
        }
        all = all + errors;
    }
    println!("{}", 100.0 * all.rate());
    Ok(())
}
