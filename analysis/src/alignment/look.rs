//! The short form: one pass over a few clips decides whether autoencoders stand where they were trained.

use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::musicgen::generate::Text;
use auscult_model::musicgen::{Decoder, Site};
use auscult_model::sae::{Encoder, Sae, SaePrecision};
use auscult_runtime::Edits;
use serde::Serialize;

use super::score::{SiteScore, SiteSums, candidates};
use super::verdict::{Declared, Verdict, judge};
use crate::error::{AnalysisError, Result};

/// Rows of a site that are looked at, spread over the clips: enough to tell layers apart, little beside the capture.
const ROWS: usize = 256;

/// Share of the rows' power from which on a bad FVU is the autoencoder's fault and not that of rows which hardly differ.
const MISSED: f64 = 0.25;

/// What a look at one autoencoder found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    /// Where it is to be used.
    pub site: String,
    /// Where it fits best.
    pub best: SiteScore,
    /// Whether that is the same.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Looks at autoencoders, each beside the site where it is to be used. `codes` are clips of one length, each with `text` where
/// there is one.
///
/// # Errors
/// No clips; an autoencoder of another width than its site; a site that the decoder has not; failures of the device; rows that
/// cannot be encoded.
pub fn first_look<'a>(
    decoder: &Decoder,
    codes: &[Codes],
    text: Option<&Text>,
    saes: &[(&'a Sae, Site)],
) -> Result<Vec<Look>> {
    let first = codes.first().ok_or_else(|| AnalysisError::usage("AUDIO", 0, "at least one clip"))?;
    let config = decoder.config();
    let mut sites: Vec<Site> = candidates(config.num_hidden_layers).collect();
    for (sae, site) in saes {
        sae.check_width(site, site.width(config))?;
        if !sites.contains(&site.origin()) {
            sites.push(site.origin());
        }
    }
    let mut edits = Edits::new();
    for site in &sites {
        edits.capture(site, DType::F32);
    }
    let pass = match text {
        None => decoder.teacher_forced(codes.len(), first.frames(), edits)?,
        Some(text) => decoder.teacher_forced_with_text(codes.len(), first.frames(), text.tokens(), edits)?,
    };
    pass.run_with_texts(codes, &vec![text; codes.len()])?;
    let mut scores: Vec<Vec<SiteScore>> = saes.iter().map(|_| Vec::new()).collect();
    let encoder = |(sae, _): &(&'a Sae, Site)| Encoder::new(sae, SaePrecision::F32, decoder.backend());
    let mut encoders: Vec<Encoder<'a>> = saes.iter().map(encoder).collect::<Result<_, _>>()?;
    for site in &sites {
        let width = site.width(config);
        let rows = spread(&pass.output_f32(&site.to_string())?, width);
        let fitting =
            encoders.iter_mut().zip(&mut scores).filter(|(encoder, _)| encoder.sae().width() == width);
        for (encoder, scores) in fitting {
            let mut sums = SiteSums::new(*site, encoder.sae());
            sums.add(encoder, &rows)?;
            scores.push(sums.score(config.num_hidden_layers));
        }
    }
    let looked = |((_, site), scores): (&(&'a Sae, Site), &Vec<SiteScore>)| {
        let (best, verdict) = judge(Some(&Declared::used_at(*site)), scores);
        let verdict = unless_alike(verdict, best);
        Look { site: site.to_string(), best: best.clone(), verdict }
    };
    Ok(saes.iter().zip(&scores).map(looked).collect())
}

/// First clips may be silent: what fits nowhere is not held against an autoencoder that meets what there is.
fn unless_alike(verdict: Verdict, best: &SiteScore) -> Verdict {
    match verdict {
        Verdict::Nowhere { message } if best.missed_power.is_some_and(|missed| missed < MISSED) => {
            Verdict::Unclear { message }
        }
        other => other,
    }
}

/// At most [`ROWS`] of the rows, evenly.
fn spread(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.len() / width;
    let kept = rows.min(ROWS);
    (0..kept).flat_map(|i| &values[i * rows / kept * width..][..width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_from_everywhere() {
        let values: Vec<f32> = (0..2000).map(|v| v as f32).collect();
        let kept = spread(&values, 2);
        assert_eq!((kept.len(), kept[0], kept[1]), (2 * ROWS, 0.0, 1.0));
        assert!(kept[2 * ROWS - 2] > 1980.0, "the last rows too");
        assert_eq!(spread(&values[..6], 2), values[..6]);
    }

    #[test]
    fn rows_that_hardly_differ_decide_nothing() {
        let score = |missed| SiteScore {
            site: "embed".into(),
            also: Vec::new(),
            rows: 9,
            fvu: Some(1.5),
            explained_variance: Some(-0.5),
            missed_power: Some(missed),
            l0: Some(3.0),
            dead: 0.5,
            cross_entropy: None,
        };
        let refused = |score: SiteScore| {
            let (best, verdict) = judge(Some(&Declared::used_at(Site::Embed)), std::slice::from_ref(&score));
            unless_alike(verdict, best).refusal().is_some()
        };
        assert!(!refused(score(0.01)) && refused(score(0.9)));
    }
}
