// Guess the language of a text, by comparing its trigrams (all its groups of
// three bytes) with those of a sample text in each language.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// A language is a global object; its constructor learns from the sample and
// adds the language to the list of all. So a language is added to the program
// by linking its source file: see languages/.
class Language {
public:
  Language(const char *name, std::string_view sample);
  Language(const Language &) = delete;
  Language &operator=(const Language &) = delete;

  const std::string &name() const { return name_; }

  // How likely the text is in this language: the mean logarithm of its
  // trigrams' probabilities.
  double score(std::string_view text) const;

  // The most likely language, or null where the text holds no letters.
  static const Language *guess(std::string_view text);

  // How many constructors ran.
  static int constructed() { return constructed_; }

private:
  std::string name_;
  std::unordered_map<std::uint32_t, double> probabilities_;
  double unseen_;

  // A plain list of plain pointers needs no constructor of its own, so it is
  // there before the first language, whichever source file that comes from.
  Language *next_;
  static Language *first_;
  static int constructed_;
};
