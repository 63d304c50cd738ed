"""The chroma that MusicGen Melody is given: Hugging Face's feature extractor without torchaudio, on signals of sines."""

from types import SimpleNamespace

import numpy as np
import torch
from transformers.audio_utils import chroma_filter_bank
from transformers.models.musicgen_melody.feature_extraction_musicgen_melody import MusicgenMelodyFeatureExtractor

RATE, N_FFT, HOP = 32000, 16384, 4096


def note(semitones):
    """Semitones from A4."""
    return 440.0 * 2.0 ** (semitones / 12.0)


# Parts of PART samples, each a list of [frequency, amplitude]; the parts repeat.
PART = 12000
CHORDS = [[[note(n), a] for n, a in part] for part in (
    [(-9, 0.4), (-5, 0.2), (-2, 0.1)], [(0, 0.3), (4, 0.25), (19, 0.05)], [(-20, 0.5), (8, 0.1)], [(14, 0.2), (2, 0.2)],
    [(-34, 0.6), (-27, 0.1)], [(31, 0.15), (-1, 0.1)])]
SIGNALS = {"chords": (96000, CHORDS), "ragged": (70001, CHORDS[3:]), "short": (5001, CHORDS[1:]), "silence": (20000, [[]])}


def signal(samples, parts):
    """Sines, each part's counted from the signal's beginning, in float64, then float32."""
    i, x = np.arange(samples, dtype=np.float64), np.zeros(samples)
    part = (np.arange(samples) // PART) % len(parts)
    for p, partials in enumerate(parts):
        for frequency, amplitude in partials:
            x += np.where(part == p, amplitude * np.sin(2 * np.pi * frequency * i / RATE), 0.0)
    return torch.from_numpy(x.astype(np.float32))


def spectrogram(wav):
    """`torchaudio.transforms.Spectrogram(n_fft, win_length=n_fft, hop_length, power=2, center=True, normalized=True)`, in
    the type of `wav`: [..., bins, frames]."""
    window = torch.hann_window(N_FFT, dtype=wav.dtype)
    found = torch.stft(wav, N_FFT, HOP, N_FFT, window, center=True, pad_mode="reflect", normalized=False, onesided=True,
                       return_complex=True)
    return (found / window.pow(2).sum().sqrt()).abs().pow(2)


def chroma_of(wav, filters):
    """`_torch_extract_fbank_features` step by step: (energy [frames, 12], normalised, classes)."""
    if wav.shape[-1] < N_FFT:
        pad = N_FFT - wav.shape[-1]
        wav = torch.nn.functional.pad(wav, (pad // 2, pad - pad // 2))
    energy = (filters.to(wav.dtype) @ spectrogram(wav)).t()
    normal = torch.nn.functional.normalize(energy, p=float("inf"), dim=-1, eps=1e-6)
    return energy, normal, normal.argmax(-1)


def chroma_case(case):
    filters = torch.from_numpy(chroma_filter_bank(sampling_rate=RATE, num_frequency_bins=N_FFT, tuning=0, num_chroma=12))
    bins = [0, 1, 2, 3, 50, 113, 225, 226, 1000, 4000, 8191, 8192]
    case.manifest["runs"]["filters"] = {"kind": "filters", "rate": RATE, "n_fft": N_FFT, "hop": HOP, "bins": bins}
    case.put("filters.columns", filters[:, bins].t())
    case.put("filters.sums", filters.sum(1))
    for run, (samples, parts) in SIGNALS.items():
        wav = signal(samples, parts)
        energy, normal, classes = chroma_of(wav.double(), filters)
        near = chroma_of(wav, filters)
        # HF's own method, given what torchaudio would give it.
        given = SimpleNamespace(n_fft=N_FFT, chroma_filters=filters.float(), spectrogram=spectrogram)
        one_hot = MusicgenMelodyFeatureExtractor._torch_extract_fbank_features(given, wav[None])[0]
        assert torch.equal(one_hot.argmax(-1), classes) and torch.equal(near[2], classes)
        top = normal.sort(-1, descending=True).values
        margin = float((top[:, 0] - top[:, 1]).min())
        assert margin > 1e-2 or not energy.any(), f"{run}: margin {margin}"
        case.manifest["runs"][run] = {
            "kind": "chroma", "samples": samples, "frames": len(classes), "part": PART, "parts": parts,
            "margin": float(f"{margin:.3g}")}
        case.put(f"{run}.energy", energy, near[0])
        case.put(f"{run}.normal", normal, near[1])
        case.put(f"{run}.classes", classes)
