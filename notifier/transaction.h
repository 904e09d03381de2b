// What the queue's files share: a transaction that is tried again, and statements about many ids.
#pragma once

#include <array>
#include <chrono>
#include <span>
#include <string>
#include <thread>

#include "notifier/sql.h"

namespace radiotower::notifier {

/// `work` and a commit, from the start again when another connection was in the way: up to 5 times or 5 s. What `work`
/// returns is what the last try made; it may keep nothing of an earlier one. Anything thrown: nothing of it was done,
/// or (a commit whose answer was lost) nobody knows.
template <class Work>
auto in_transaction(Sql& sql, Work&& work) {
  const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  for (int tries = 1;; ++tries) {
    try {
      sql.begin();
      auto result = work();
      sql.commit();
      return result;
    } catch (const SqlError& error) {
      sql.rollback();
      if (error.kind != SqlError::Kind::busy || tries == 5 || std::chrono::steady_clock::now() >= patience_ends) throw;
    } catch (...) {
      sql.rollback();
      throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 << tries));
  }
}

/// Sixteen ids a statement: both databases take it, it is prepared once, and a digest of hundreds is some tens of round
/// trips.
inline constexpr std::size_t ids_at_once = 16;
inline const std::string these_ids = "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// `statement` uses these_ids; `more` are its $17 and on. Returns the rows of all its runs.
template <class... More>
std::vector<Row> run_for(Sql& sql, const std::string& statement, std::span<const std::int64_t> ids,
                         const More&... more) {
  std::vector<Row> rows;
  for (; !ids.empty(); ids = ids.subspan(std::min(ids.size(), ids_at_once))) {
    std::array<std::int64_t, ids_at_once> i;
    i.fill(-1);  // no row has it
    std::copy_n(ids.begin(), std::min(ids.size(), ids_at_once), i.begin());
    auto some = sql.run(statement.c_str(), {i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11],
                                            i[12], i[13], i[14], i[15], Value(more)...});
    rows.insert(rows.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  }
  return rows;
}

}  // namespace radiotower::notifier
