#include "language.hpp"

#include <cmath>

namespace {

// Letters in lower case, one space for everything between words. Bytes beyond
// ASCII are parts of UTF-8 letters and stay as they are.
std::string normalize(std::string_view text) {
  std::string result(1, ' ');
  for (unsigned char byte : text) {
    if (byte >= 'A' && byte <= 'Z') byte += 'a' - 'A';
    if ((byte >= 'a' && byte <= 'z') || byte >= 0x80)
      result += static_cast<char>(byte);
    else if (result.back() != ' ')
      result += ' ';
  }
  if (result.back() != ' ') result += ' ';
  return result;
}

template <typename Visit> int each_trigram(std::string_view text, Visit visit) {
  const std::string letters = normalize(text);
  int count = 0;
  for (std::size_t i = 0; i + 3 <= letters.size(); i++, count++) {
    const auto byte = [&](std::size_t at) {
      return static_cast<std::uint32_t>(static_cast<unsigned char>(letters[i + at]));
    };
    visit(byte(0) << 16 | byte(1) << 8 | byte(2));
  }
  return count;
}

} // namespace

Language *Language::first_ = nullptr;
int Language::constructed_ = 0;

Language::Language(const char *name, std::string_view sample) : name_(name) {
  const int total = each_trigram(sample, [&](std::uint32_t trigram) {
    probabilities_[trigram] += 1;
  });
  for (auto &[trigram, probability] : probabilities_)
    probability = std::log(probability / total);
  unseen_ = std::log(0.1 / total);

  next_ = first_;
  first_ = this;
  constructed_++;
}

double Language::score(std::string_view text) const {
  double sum = 0;
  const int total = each_trigram(text, [&](std::uint32_t trigram) {
    const auto found = probabilities_.find(trigram);
    sum += found == probabilities_.end() ? unseen_ : found->second;
  });
  return total == 0 ? 0 : sum / total;
}

const Language *Language::guess(std::string_view text) {
  if (normalize(text).size() <= 1) return nullptr;
  const Language *best = nullptr;
  double best_score = 0;
  for (const Language *language = first_; language; language = language->next_) {
    const double score = language->score(text);
    if (best == nullptr || score > best_score) {
      best = language;
      best_score = score;
    }
  }
  return best;
}
