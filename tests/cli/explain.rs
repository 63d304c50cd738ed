//! `--explain`: which kernels a command runs, said on stderr before it runs them.

use crate::support::{Ran, command, finished, folder, music, run};

crate::trials!(
    the_codec_is_explained_both_ways,
    captures_explain_the_codec_and_the_decoder,
    texts_are_explained,
    takes_are_explained,
);

/// The headings, in order, each with the launches below it, of which there are some. On a processor each names what runs it.
fn explained(ran: &Ran) -> Vec<(&str, Vec<&str>)> {
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in ran.stderr.lines() {
        if let Some(heading) = line.strip_suffix(':') {
            told.push((heading, Vec::new()));
        } else if line.ends_with(" | host form") || line.ends_with(" | reference") {
            told.last_mut().expect("a heading comes first").1.push(line);
        }
    }
    for (heading, launches) in &told {
        assert!(!launches.is_empty(), "nothing below `{heading}`\n{ran}");
    }
    told
}

fn headings<'a>(told: &[(&'a str, Vec<&str>)]) -> Vec<&'a str> {
    told.iter().map(|(heading, _)| *heading).collect()
}

fn launches(told: &[(&str, Vec<&str>)], kernel: &str) -> usize {
    told.iter().flat_map(|(_, launches)| launches).filter(|line| line.starts_with(kernel)).count()
}

fn the_codec_is_explained_both_ways() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 0.5, 32_000, 3);
    let plain = run(dir.path(), "codec encode a.wav --model MODEL --out plain").ok();
    assert!(explained(&plain).is_empty(), "{plain}");
    let ran = run(dir.path(), "codec encode a.wav --model MODEL --out c --explain").ok();
    let told = explained(&ran);
    assert_eq!(
        headings(&told),
        [
            "the codec's encoder up to its LSTM, over 1 clips of 16000 samples",
            "its LSTM and what follows, over 1 clips of 25 frames"
        ]
    );
    assert!(launches(&told[..1], "conv1d_f32") >= 3, "{ran}");
    assert_eq!(launches(&told[1..], "rvq_encode_f32"), 1, "{ran}");
    assert_eq!(
        std::fs::read(dir.path().join("c")).expect("written"),
        std::fs::read(dir.path().join("plain")).expect("written")
    );
    let ran = run(dir.path(), "codec decode c --model MODEL --out b.wav --explain").ok();
    let told = explained(&ran);
    assert_eq!(
        headings(&told),
        ["the codec's decoder up to its LSTM, over 25 frames", "what follows its LSTM, over 25 frames"]
    );
    assert_eq!(launches(&told[..1], "rvq_decode_f32"), 1, "{ran}");
    assert!(launches(&told[1..], "conv_transpose1d_f32") >= 2, "{ran}");
}

fn captures_explain_the_codec_and_the_decoder() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 0.5, 32_000, 3);
    let line = "capture a.wav --model MODEL --hooks embed --window 0.2 --batch 3 --explain --out s";
    let ran = run(dir.path(), line).ok();
    let told = explained(&ran);
    let last = headings(&told).pop();
    assert_eq!(last, Some("the decoder over 3 clips of 10 frames"), "{ran}");
    assert!(
        headings(&told)[0].starts_with("the codec's encoder up to its LSTM, over 1 clips of 6400"),
        "{ran}"
    );
    assert!(headings(&told)[0].ends_with(", 3 times"), "one after another on a processor\n{ran}");
}

fn texts_are_explained() {
    let dir = folder();
    let line = "t5 encode --model MODEL --out e --explain";
    let mut asked = command(dir.path(), line);
    asked.args(["--text", "a slow waltz", "drums"]);
    let ran = finished(line, &mut asked).ok();
    let told = explained(&ran);
    let [encoder, projection] = headings(&told)[..] else { panic!("{ran}") };
    assert!(encoder.starts_with("the text encoder over 2 prompts of "), "{ran}");
    assert!(projection.starts_with("its projection over "), "{ran}");
    assert!(launches(&told[..1], "rms_norm_f32") >= 3, "{ran}");
    assert_eq!(told[1].1.len(), 1, "{ran}");
}

fn takes_are_explained() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 0.3, 32_000, 3);
    let line = "generate --model MODEL --seconds 0.1 --count 3 --out plain --explain";
    let ran = run(dir.path(), line).ok();
    let told = explained(&ran);
    assert_eq!(headings(&told), ["a column of 3 takes, 3 rows"], "{ran}");
    assert_eq!(launches(&told, "sample_u32"), 1, "{ran}");

    let line =
        "generate --model MODEL --seconds 0.3 --audio-prompt a.wav --prompt-seconds 0.2 --out told --explain";
    let mut asked = command(dir.path(), line);
    asked.args(["--text", "a slow waltz"]);
    let ran = finished(line, &mut asked).ok();
    let told = explained(&ran);
    let [text, beginning, column] = headings(&told)[..] else { panic!("{ran}") };
    assert!(text.starts_with("keys and values of a text of "), "{ran}");
    assert_eq!(beginning, "the beginning of a take, 2 rows of 0 positions and 10 columns", "{ran}");
    assert_eq!(column, "a column of 1 takes, 2 rows", "{ran}");
    assert!(launches(&told[1..2], "attention_") >= 1, "{ran}");
    assert!(launches(&told[2..], "attention_cache_") >= 1, "{ran}");
}
