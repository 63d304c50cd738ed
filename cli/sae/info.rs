//! `auscult sae info`: what an autoencoder's files hold.

use crate::context::Context;
use anyhow::Result;
use auscult_model::musicgen::Site;
use auscult_model::sae::Sae;
use serde_json::json;
use std::path::Path;

pub fn info(context: &Context, dir: &Path) -> Result<()> {
    let sae = Sae::open(dir)?;
    let settings = sae.settings();
    let metadata = &settings.metadata;
    let norms = sae.decoder_norms();
    let least = norms.iter().copied().fold(f32::INFINITY, f32::min);
    let most = norms.iter().copied().fold(0.0, f32::max);
    let mean = norms.iter().map(|&n| f64::from(n)).sum::<f64>() / norms.len() as f64;
    let sparsity = sae.read_sparsity(dir)?.map(|logs| Sparsity::of(&logs));
    let site = sae.hook().and_then(|hook| hook.parse::<Site>().ok());
    let fused = sae.check_form().err().map(|why| why.to_string());

    let active = sae.k().map_or("any number".to_string(), |k| format!("at most {k}"));
    let mut text = format!("{}: {} x {} features\n", dir.display(), sae.width(), sae.features());
    text += &sae.origin().map_or(String::new(), |file| format!("file      {}\n", file.display()));
    text += &format!("active    {active} a row ({})\n", settings.activation.architecture());
    text += &format!("hook      {}", sae.hook().unwrap_or("not named"));
    text += &site.map_or("\n".to_string(), |site| format!(" = {site}\n"));
    text += &format!("model     {}\n", metadata.model.as_deref().unwrap_or("not named"));
    let subtracted = if settings.apply_b_dec_to_input { "b_dec subtracted" } else { "b_dec not subtracted" };
    text += &format!("input     {subtracted}, normalisation {}\n", settings.normalize.name());
    text += &format!("decoder   lengths of directions {least:.4} to {most:.4}, mean {mean:.4}\n");
    let unit = sae.unit_directions();
    if !unit {
        text += "          not of length 1: a feature's value is no length in the stream, value times length is\n";
    }
    if let Some(Sparsity { active, silent, rare }) = sparsity {
        text += &format!(
            "training  {active:.1} features active a row; {silent} never, {rare} in less than one row of 100,000\n"
        );
    }
    let generation = match &fused {
        None => "its features can be edited while music is generated",
        Some(why) => why,
    };
    text += &format!("generate  {generation}");
    let json = json!({
        "path": dir, "architecture": settings.activation.architecture(), "d_in": sae.width(), "d_sae": sae.features(),
        "k": sae.k(), "hook": sae.hook(), "site": site.map(|s| s.to_string()), "layer": metadata.layer, "model": metadata.model,
        "apply_b_dec_to_input": settings.apply_b_dec_to_input, "normalize_activations": settings.normalize.name(),
        "file": sae.origin(), "unit_directions": unit, "decoder_norms": { "min": least, "mean": mean, "max": most },
        "sparsity": sparsity.map(|s| json!({ "active": s.active, "silent": s.silent, "rare": s.rare })),
        "generates": fused.is_none(), "metadata": metadata.other,
    });
    context.result(&text, &json);
    Ok(())
}

/// What the shares of rows say in which features were active in training.
#[derive(Clone, Copy)]
struct Sparsity {
    /// Features active in a row, on average.
    active: f64,
    /// Features never active.
    silent: usize,
    /// Features active in less than one row of 100,000, the silent ones among them.
    rare: usize,
}

impl Sparsity {
    fn of(logs: &[f32]) -> Self {
        // SAELens writes log10(share + 1e-10)
        let below = |limit: f32| logs.iter().filter(|&&log| log < limit).count();
        let active = logs.iter().map(|&log| 10f64.powf(f64::from(log))).sum();
        Self { active, silent: below(-9.5), rare: below(-5.0) }
    }
}
