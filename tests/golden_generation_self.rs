//! The expectations of generation, judged before they judge: complete, clear of near ties, and true to each other.

mod common;

use std::fs;

use common::checkpoint::{Layout, write_checkpoint};
use common::compare::{Tolerance, compare};
use common::generation::{Generation, Part, Run, SequenceFacts, TextPad, real_rows};
use common::golden::{Case, Kind, Tensor, Values, read_safetensors};
use common::sampling::{greedy, philox4x32_10, pick, uniform};
use sha2::{Digest, Sha256};

const DECODERS: [&str; 10] =
    ["hd1", "hd128", "hd20", "hd33", "hd40", "hd65", "hd8", "hd96", "stereo", "tiny"];
const MELODIES: [&str; 2] = ["melody", "melody-stereo"];

fn models() -> Vec<Generation> {
    let decoders = Generation::all_of(Kind::Musicgen);
    decoders.into_iter().chain(Generation::all_of(Kind::Melody)).collect()
}

/// (d_model, layers, vocabulary, codebooks) as config.json has them.
fn dimensions(generation: &Generation) -> [usize; 4] {
    let config: serde_json::Value = serde_json::from_str(&generation.case.config_json()).expect("JSON");
    ["hidden_size", "num_hidden_layers", "vocab_size", "num_codebooks"]
        .map(|name| usize::try_from(config["decoder"][name].as_u64().expect(name)).expect("a size"))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values of a tensor at `[row, ...]`.
fn row(tensor: &Tensor, row: usize) -> &[f32] {
    let size = tensor.count() / tensor.shape[0];
    &tensor.f32()[row * size..][..size]
}

#[test]
fn every_model_has_its_expectations() {
    let names = |kind| Generation::all_of(kind).iter().map(|g| g.case.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(Kind::Musicgen), DECODERS);
    assert_eq!(names(Kind::Melody), MELODIES);
    assert_eq!(names(Kind::Tables), ["chroma"]);
    for generation in models().iter().chain(&Generation::all_of(Kind::Tables)) {
        let case = &generation.case;
        let bytes = fs::read(case.dir.join("generation.safetensors")).expect("every case has expectations");
        assert_eq!(hex(Sha256::digest(&bytes)), case.expected_sha256, "tensors of `{}`", case.name);
        for (name, tensor) in &case.stored {
            if let Values::F32(values) = &tensor.values {
                assert!(values.iter().all(|v| v.is_finite()), "`{name}` of `{}` is not finite", case.name);
            }
        }
    }
}

/// Random123's `kat_vectors`.
#[test]
fn philox_gives_the_published_words() {
    assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = u32::MAX;
    assert_eq!(philox4x32_10([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let words = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(philox4x32_10(pi, [0xa409_3822, 0x299f_31d0]), words);
    assert_eq!(uniform(0, 0, 0, 0), f64::from(0x66_27e8u32) / f64::from(1u32 << 24));
}

#[test]
fn picks_follow_the_definition() {
    let scores = [0.5f64, 0.125, 0.25, 0.125].map(f64::ln);
    let codes = |u: &[f64], k, p| u.iter().map(|&u| pick(&scores, u, 1.0, k, p)).collect::<Vec<_>>();
    assert_eq!(codes(&[0.0, 0.49, 0.51, 0.62, 0.63, 0.87, 0.88, 0.999], 0, 0.0), [0, 0, 1, 1, 2, 2, 3, 3]);
    // The two largest share 2/3 and 1/3; the third largest is a tie, and ties are kept.
    assert_eq!(codes(&[0.66, 0.67, 0.999], 2, 0.0), [0, 2, 2]);
    assert_eq!(codes(&[0.51, 0.999], 3, 0.0), [1, 3]);
    assert_eq!(codes(&[0.66, 0.67, 0.999], 0, 0.7), [0, 2, 2]);
    assert_eq!(codes(&[0.999], 0, 0.45), [0]);
    assert_eq!(pick(&[0.0, 0.0], 0.6, 0.5, 1, 0.0), 1, "both are the largest");
    // At half the temperature masses are squared.
    assert_eq!(pick(&scores, 0.72, 0.5, 0, 0.0), 0);
    assert_eq!(pick(&scores, 0.74, 0.5, 0, 0.0), 1);
    assert_eq!(greedy(&[1.0, 3.0, 3.0]), 1);
}

/// The text runs, and the projection recomputed from the weights.
#[test]
fn texts_are_complete() {
    for generation in models() {
        let name = &generation.case.name;
        let model = generation.model();
        let weight = |wanted: &str| {
            let spec = model.weights.iter().find(|weight| weight.name == wanted);
            spec.map(|spec| spec.values().collect::<Vec<f32>>())
        };
        let (matrix, bias) = (weight("enc_to_dec_proj.weight"), weight("enc_to_dec_proj.bias"));
        let text = generation.text("text");
        assert_eq!(text.facts.lengths, [1, 4, 9], "prompts of `{name}`");
        assert!(
            text.ids().iter().skip(1).all(|ids| ids[ids.len() - 1] == 1),
            "a prompt of `{name}` has no end"
        );
        for run in generation.texts() {
            let (states, longest) = (run.states(), run.tensor("ids").shape[1]);
            let width = states.shape[2];
            assert_eq!(states.shape[..2], [run.facts.rows, longest], "`{name}` {}", run.name);
            for (i, &length) in run.facts.lengths.iter().enumerate() {
                let real = real_rows(&states, i, length);
                assert!(real.iter().any(|&v| v != 0.0));
                assert!(row(&states, i)[length * width..].iter().all(|&v| v == 0.0), "padding of `{name}`");
                if !run.holds("projected") {
                    continue;
                }
                let projected = run.projected();
                let d_model = projected.shape[2];
                let want: Vec<f32> = real
                    .chunks_exact(width)
                    .flat_map(|x| match (&matrix, &bias) {
                        (Some(matrix), Some(bias)) => (0..d_model)
                            .map(|o| {
                                let w = &matrix[o * width..][..width];
                                let dot: f64 =
                                    w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                                (dot + f64::from(bias[o])) as f32
                            })
                            .collect::<Vec<_>>(),
                        _ => x.to_vec(),
                    })
                    .collect();
                let tolerance = Tolerance { rel_l2: 2e-7, elem_over_rms: 1e-6 };
                compare(&format!("{name} projected {i}"), &want, real_rows(&projected, i, length), tolerance);
                assert!(row(&projected, i)[length * d_model..].iter().all(|&v| v == 0.0));
            }
        }
        if generation.case.kind == Kind::Musicgen {
            assert_eq!(generation.text("text.long").facts.lengths, [140]);
        }
    }
}

/// Every site of every layer, and the residual stream as the sum of its writers.
#[test]
fn forwards_are_complete() {
    let mut runs = 0;
    for generation in models() {
        let [d_model, layers, vocab, codebooks] = dimensions(&generation);
        let cross = generation.case.kind == Kind::Musicgen;
        for run in generation.forwards() {
            runs += 1;
            let f = &run.facts;
            let name = format!("{}/{}", generation.case.name, run.name);
            assert_eq!(run.codes().shape, [f.rows, codebooks, f.frames]);
            assert_eq!(run.delayed().shape, [f.rows, codebooks, f.steps]);
            assert_eq!([f.steps, f.delays.len()], [f.frames + 1, codebooks]);
            for (i, &id) in run.delayed().i32().iter().enumerate() {
                let (line, step) = (i / f.steps, i % f.steps);
                let frame = step.checked_sub(1 + f.delays[line % codebooks]);
                let want = frame.map_or(vocab as i32, |t| run.codes().i32()[line * f.frames + t]);
                assert_eq!(id, want, "delayed id {i} of {name}");
            }
            let sites = run.sites(Part::Cond);
            assert_eq!(sites.len(), (if cross { 6 } else { 5 }) * layers + 3, "sites of {name}");
            assert_eq!([&sites[0], &sites[sites.len() - 1]], ["embed", "logits"]);
            let hidden = [f.rows, f.prefix + f.steps, d_model];
            let last = format!("layers.{}.resid_post", layers - 1);
            let mut few: Vec<String> = vec![last.clone(), "logits".to_owned()];
            assert_eq!(run.sites(Part::Null), few);
            if cross {
                few.splice(0..0, (0..layers).map(|i| format!("layers.{i}.cross_attn_out")));
                assert_eq!(run.sites(Part::Attend), few);
            }
            for part in [Part::Cond, Part::Null, Part::Attend] {
                for site in run.sites(part) {
                    let logits = [f.rows, f.steps, codebooks, vocab];
                    let want = if site == "logits" { &logits[..] } else { &hidden[..] };
                    assert_eq!(run.site(part, &site).shape, want, "`{site}` of {name}");
                }
            }
            for layer in 0..layers {
                let at = |site: &str| run.site(Part::Cond, &format!("layers.{layer}.{site}"));
                let sum = |tensors: &[Tensor]| -> Vec<f32> {
                    let values =
                        |i| tensors.iter().map(|t: &Tensor| f64::from(t.f32()[i])).sum::<f64>() as f32;
                    (0..tensors[0].count()).map(values).collect()
                };
                // Three f32 roundings of values of unit scale.
                let tolerance = Tolerance { rel_l2: 2e-7, elem_over_rms: 1e-6 };
                let mid = sum(&[at("resid_pre"), at("self_attn_out")]);
                compare(&format!("{name} {layer} mid"), &mid, at("resid_mid").f32(), tolerance);
                let mut writers = vec![at("resid_mid"), at("mlp_out")];
                if cross {
                    writers.push(at("cross_attn_out"));
                    assert!(writers[2].f32().iter().any(|&v| v != 0.0), "text says nothing in {name}");
                }
                compare(&format!("{name} {layer} post"), &sum(&writers), at("resid_post").f32(), tolerance);
            }
            let differ = |a: &Tensor, b: &Tensor, i| row(a, i) != row(b, i);
            let (cond, null) = (run.site(Part::Cond, &last), run.site(Part::Null, &last));
            assert!((0..f.rows).all(|i| differ(&cond, &null, i)), "guidance has nothing to guide in {name}");
            if cross {
                let attend = run.site(Part::Attend, &last);
                let lengths = generation.text("text").facts.lengths;
                let rows = f.text_rows.as_ref().expect("a decoder's rows have text");
                for (i, &prompt) in rows.iter().enumerate() {
                    let padded = lengths[prompt] < lengths[2];
                    assert_eq!(differ(&cond, &attend, i), padded, "row {i} of {name}");
                }
            }
        }
    }
    assert_eq!(runs, DECODERS.len() + MELODIES.len());
}

/// Codes in range, prompts kept, choices clear; every stored logit gives the code that was taken.
#[test]
fn sequences_follow_from_their_logits() {
    let (mut sequences, mut choices) = (0, 0);
    for generation in models() {
        let [_, _, vocab, codebooks] = dimensions(&generation);
        for run in generation.sequences() {
            sequences += 1;
            let f = &run.facts;
            let name = format!("{}/{}", generation.case.name, run.name);
            let codes = run.codes();
            assert_eq!(codes.shape, [f.rows, codebooks, f.frames], "{name}");
            assert!(codes.i32().iter().all(|&code| (0..vocab as i32).contains(&code)), "{name}");
            assert_eq!(run.prompt().shape, [f.rows, codebooks, f.prompt]);
            if f.prompt > 0 {
                let starts = codes.i32().chunks_exact(f.frames).flat_map(|line| &line[..f.prompt]);
                assert!(starts.eq(run.prompt().i32()), "{name} does not begin with its prompt");
            }
            assert!(f.margin > if f.sampling.is_some() { 3e-5 } else { 1e-4 }, "{name}: {}", f.margin);
            let different = codes.i32().iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(different > 1, "{name} is one code");
            if let Some(sampling) = &f.sampling {
                assert_eq!([sampling.seeds.len(), sampling.row_keys.len()], [f.rows; 2]);
                assert!(sampling.seeds.iter().all(|seed| seed >> 32 != 0), "both words of a seed matter");
            }
            choices += check_choices(&run, codebooks, vocab, &name);
        }
    }
    assert_eq!(sequences, 17 * DECODERS.len() + 8 * MELODIES.len());
    assert!(choices > 2_000, "{choices} choices were checked");
}

/// Makes every choice again from the stored logits. Returns how many there were.
fn check_choices(run: &Run<SequenceFacts>, codebooks: usize, vocab: usize, name: &str) -> usize {
    let f = &run.facts;
    if f.columns.is_empty() {
        return 0;
    }
    let (codes, guided) = (run.codes(), run.guided());
    let shape = [f.rows, f.columns.len(), codebooks, vocab];
    assert_eq!(run.cond().shape, shape, "logits of {name}");
    assert!(run.null().is_none_or(|null| null.shape == shape));
    let mut checked = 0;
    for (i, logits) in guided.chunks_exact(vocab).enumerate() {
        let (q, at, take) = (i % codebooks, i / codebooks % f.columns.len(), i / codebooks / f.columns.len());
        let column = f.columns[at];
        let Some(frame) = f.decided(column, q) else { continue };
        let want = codes.i32()[(take * codebooks + q) * f.frames + frame];
        let got = match &f.sampling {
            None => greedy(logits),
            Some(s) => {
                let (step, q) =
                    (u32::try_from(column).expect("a step"), u32::try_from(q).expect("a codebook"));
                let u = uniform(s.seeds[take], s.row_keys[take], step, q);
                pick(logits, u, s.temperature, s.top_k, s.top_p)
            }
        };
        assert_eq!(
            got,
            usize::try_from(want).expect("a code"),
            "{name}: row {take} column {column} codebook {q}"
        );
        checked += 1;
    }
    checked
}

/// What two runs must agree on, since the same rows are fed the same columns.
#[test]
fn runs_agree_where_they_overlap() {
    let near = Tolerance { rel_l2: 3e-7, elem_over_rms: 2e-6 };
    for generation in Generation::all_of(Kind::Musicgen) {
        let name = &generation.case.name;
        // Column 0 is all special in every run without a prompt, and in the forward pass.
        let guided = generation.sequence("greedy.guided");
        let first = |tensor: &Tensor, i: usize| row(tensor, i)[..tensor.shape[2] * tensor.shape[3]].to_vec();
        let null = guided.null().expect("guided");
        let untold = generation.sequence("untold.p0").cond();
        let forward = &generation.forwards()[0];
        let forward_null = forward.site(Part::Null, "logits");
        for i in 0..guided.facts.rows {
            compare(&format!("{name} null {i}"), &first(&null, i), &first(&untold, 0), near);
        }
        let rows = forward.facts.text_rows.clone().expect("text");
        for (i, &prompt) in rows.iter().enumerate() {
            let logits = forward.site(Part::Cond, "logits");
            let want = first(&guided.cond(), prompt);
            compare(&format!("{name} forward {i}"), &first(&logits, i), &want, near);
            compare(&format!("{name} forward null {i}"), &first(&forward_null, i), &first(&untold, 0), near);
            let plain = generation.sequence("greedy.plain").cond();
            compare(&format!("{name} plain {i}"), &first(&plain, prompt), &want, near);
        }
        let (attend, mask) = (generation.sequence("greedy.attend"), guided.cond());
        assert_eq!(attend.facts.text_pad, Some(TextPad::Attend));
        assert_ne!(first(&attend.cond(), 0), first(&mask, 0), "padding takes its share in `{name}`");
        compare(&format!("{name} attend 2"), &first(&attend.cond(), 2), &first(&mask, 2), near);
        // The first window is a sequence of its own until its end shows: 20 frames, the longest delay before it.
        let window = generation.sequence("window.greedy");
        let delay = *window.facts.delays.iter().max().expect("a codebook");
        let frames = |run: &Run<SequenceFacts>, line: usize| {
            run.codes().i32()[line * run.facts.frames..][..20 - delay].to_vec()
        };
        for line in 0..window.facts.rows * window.facts.delays.len() {
            assert_eq!(frames(&window, line), frames(&guided, line), "line {line} of `{name}`");
        }
    }
}

#[test]
fn windows_slide_as_audiocraft_does() {
    for generation in Generation::all_of(Kind::Musicgen) {
        let mut windowed = 0;
        for run in generation.sequences() {
            let Some(window) = &run.facts.window else { continue };
            windowed += 1;
            assert_eq!([window.longest, window.stride, run.facts.frames], [20, 12, 50]);
            assert_eq!(window.spans[0], [0, run.facts.prompt, 20]);
            assert_eq!(window.spans[1..], [[12, 8, 20], [24, 8, 20], [36, 8, 14]], "{}", run.name);
        }
        assert_eq!(windowed, 3);
    }
}

#[test]
fn a_sequence_is_fed_as_the_pattern_delays_it() {
    let generation = Generation::committed("stereo");
    let run = generation.sequence("continue.p5");
    let (fed, codes) = (run.fed(16), run.codes());
    assert_eq!([fed.len(), fed[0].len(), fed[0][0].len()], [2, 8, 28 + 3]);
    let line = &codes.i32()[(8 + 7) * 28..][..28];
    assert_eq!(fed[1][7][..4], [16; 4]);
    assert_eq!(fed[1][7][4..], line[..27]);
    let line = &codes.i32()[..28];
    assert_eq!(fed[0][0][1..29], *line);
    assert_eq!(fed[0][0][29..], [16; 2]);
}

#[test]
fn melodies_stand_before_the_columns() {
    for generation in Generation::all_of(Kind::Melody) {
        let name = &generation.case.name;
        let [d_model, ..] = dimensions(&generation);
        let text = generation.text("text");
        let runs = generation.prefixes();
        assert_eq!(runs.len(), 3);
        for run in &runs {
            let f = &run.facts;
            let (states, null, projected) = (run.states(), run.null(), text.projected());
            assert_eq!(states.shape, [f.rows, f.chroma_length + f.tokens, d_model]);
            assert_eq!(null.shape, states.shape);
            for (i, &prompt) in f.text_rows.iter().enumerate() {
                let (chroma, words) = row(&states, i).split_at(f.chroma_length * d_model);
                assert_eq!(words, &row(&projected, prompt)[..f.tokens * d_model], "text of `{name}`");
                let (silence, nothing) = row(&null, i).split_at(f.chroma_length * d_model);
                assert!(nothing.iter().all(|&v| v == 0.0));
                let class_0 = &silence[..d_model];
                assert!(class_0.iter().any(|&v| v != 0.0));
                assert!(silence.chunks_exact(d_model).all(|row| row == class_0));
                let given = run.classes();
                let class = |t: usize| given.as_ref().map_or(0, |c| c.i32()[i * c.shape[1] + t % c.shape[1]]);
                for (t, row) in chroma.chunks_exact(d_model).enumerate() {
                    assert_eq!(row == class_0, class(t) == 0, "frame {t} of `{name}` {}", run.name);
                    let same = (0..t).find(|&other| class(other) == class(t));
                    assert!(same.is_none_or(|other| &chroma[other * d_model..][..d_model] == row));
                }
            }
        }
        for run in generation.sequences() {
            let prefix = run.facts.prefix.as_deref().expect("every sequence has a prefix");
            assert_eq!(generation.prefix(prefix).facts.rows, run.facts.rows);
        }
    }
}

/// Weights and files of MusicGen Melody, which no other golden covers.
#[test]
fn melody_checkpoints_are_written() {
    for generation in Generation::all_of(Kind::Melody) {
        let model: Case = generation.model();
        let mut digest = Sha256::new();
        for value in model.weights.iter().flat_map(|weight| weight.values().collect::<Vec<_>>()) {
            digest.update(value.to_le_bytes());
        }
        assert_eq!(Some(hex(digest.finalize())), model.weights_sha256, "weights of `{}`", model.name);
        let temp = tempfile::tempdir().expect("a temporary folder");
        write_checkpoint(&model, temp.path(), &Layout::default());
        let tensors = read_safetensors(&temp.path().join("model.safetensors"));
        let [d_model, ..] = dimensions(&generation);
        assert_eq!(tensors["audio_enc_to_dec_proj.weight"].shape, [d_model, 12]);
        assert_eq!(tensors["audio_enc_to_dec_proj.bias"].shape, [d_model]);
        assert!(!tensors.keys().any(|name| name.contains("encoder_attn")));
        assert_eq!(tensors.contains_key("enc_to_dec_proj.weight"), model.name == "melody");
        let config: serde_json::Value = serde_json::from_str(&model.config_json()).expect("JSON");
        assert_eq!(config["model_type"], "musicgen_melody");
        assert_eq!(config["architectures"][0], "MusicgenMelodyForConditionalGeneration");
    }
}

#[test]
fn chroma_is_that_of_its_signal() {
    let generation = Generation::committed("chroma");
    let filters = generation.filters();
    let f = &filters.facts;
    assert_eq!([f.rate, f.n_fft, f.hop], [32_000, 16_384, 4_096]);
    assert_eq!(filters.columns().shape, [f.bins.len(), 12]);
    // Bin 225 is 439.5 Hz: A, the tenth class from C.
    let at = f.bins.iter().position(|&bin| bin == 225).expect("a bin near A4");
    let column: Vec<f64> = row(&filters.columns(), at).iter().copied().map(f64::from).collect();
    assert_eq!(greedy(&column), 9);
    let mut names = Vec::new();
    for run in generation.chroma() {
        names.push(run.name.to_owned());
        let signal = run.signal();
        assert_eq!(signal.len(), run.facts.samples);
        // Shorter signals are padded to one frame's samples; frames are centred.
        assert_eq!(run.facts.frames, 1 + signal.len().max(f.n_fft) / f.hop);
        let (energy, normal, classes) = (run.energy(), run.normal(), run.classes());
        assert_eq!([&energy.shape, &normal.shape], [&[run.facts.frames, 12]; 2]);
        for (t, &class) in classes.i32().iter().enumerate() {
            let values: Vec<f64> = row(&normal, t).iter().copied().map(f64::from).collect();
            assert_eq!(
                greedy(&values),
                usize::try_from(class).expect("a class"),
                "frame {t} of {}",
                run.name
            );
            let largest = row(&energy, t).iter().copied().fold(0.0, f32::max);
            let over = if largest > 0.0 { largest } else { 1.0 };
            let divided: Vec<f32> = row(&energy, t).iter().map(|e| e / over).collect();
            for (got, want) in divided.iter().zip(row(&normal, t)) {
                assert!((got - want).abs() <= 2e-7, "frame {t} of {}: {got}, {want}", run.name);
            }
        }
    }
    assert_eq!(names, ["chords", "ragged", "short", "silence"]);
    let chords = &generation.chroma()[0];
    assert_eq!(chords.classes().i32()[0], 0, "the first chord is C");
    let classes: std::collections::BTreeSet<i32> = chords.classes().i32().iter().copied().collect();
    assert!(classes.len() >= 5, "{classes:?}");
    assert!(generation.chroma()[3].classes().i32().iter().all(|&class| class == 0), "silence is class 0");
}
