//! A full-text index: which words are in which documents, and how much each
//! tells about its document.

use std::collections::BTreeMap;

pub struct Document {
    pub name: String,
    pub title: String,
}

pub struct Index {
    documents: Vec<Document>,
    /// For each word, the documents that hold it, with the word's weight there.
    words: BTreeMap<String, Vec<(usize, f64)>>,
}

impl Index {
    /// Takes each document's name and text; the first line is its title.
    pub fn new(texts: Vec<(String, String)>) -> Index {
        let mut counts: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
        let mut documents = Vec::new();
        let mut lengths = Vec::new();

        for (number, (name, text)) in texts.into_iter().enumerate() {
            let mut length = 0;
            for word in words(&text) {
                *counts.entry(word).or_default().entry(number).or_default() += 1;
                length += 1;
            }
            lengths.push(length);
            let title = text.lines().next().unwrap_or_default().to_owned();
            documents.push(Document { name, title });
        }

        // tf-idf: a word weighs more where it is frequent, and less the more
        // documents have it.
        let weigh = |places: BTreeMap<usize, usize>| {
            let rarity = (documents.len() as f64 / places.len() as f64).ln() + 1.0;
            let weight = |(document, count)| {
                let frequency = count as f64 / lengths[document] as f64;
                (document, frequency * rarity)
            };
            places.into_iter().map(weight).collect()
        };
        let words = counts
            .into_iter()
            .map(|(word, places)| (word, weigh(places)))
            .collect();
        Index { documents, words }
    }

    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// The documents with any of the query's words, best first.
    pub fn search(&self, query: &str) -> Vec<(f64, &Document)> {
        let mut scores = vec![0.0; self.documents.len()];
        for word in words(query) {
            for &(document, weight) in self.words.get(&word).into_iter().flatten() {
                scores[document] += weight;
            }
        }
        let mut found: Vec<_> = scores.into_iter().zip(&self.documents).collect();
        found.retain(|&(score, _)| score > 0.0);
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
        found
    }
}

/// The words of a text, without those that every text has, each cut down to
/// what its forms have in common.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_lowercase)
        .filter(|word| !COMMON.contains(&word.as_str()))
        .map(stem)
}

const COMMON: &[&str] = &[
    "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "in", "into",
    "is", "it", "its", "no", "not", "of", "on", "or", "so", "than", "that", "the", "them", "then",
    "there", "they", "this", "to", "was", "what", "when", "where", "which", "while", "who", "will",
    "with", "you", "your",
];

const ENDINGS: [(&str, &str); 6] = [
    ("ies", "y"),
    ("ing", ""),
    ("ed", ""),
    ("es", ""),
    ("s", ""),
    ("e", ""),
];

/// Takes the usual English endings off, as long as enough of the word remains.
fn stem(mut word: String) -> String {
    for (ending, replacement) in ENDINGS {
        if let Some(rest) = word.strip_suffix(ending) {
            if rest.len() >= 3 && !rest.ends_with('s') {
                word.truncate(rest.len());
                word.push_str(replacement);
                break;
            }
        }
    }
    word
}
