#include "notifier/sql.h"
namespace radiotower::notifier {
bool postgresql_compiled_in() { return false; }
std::unique_ptr<Sql> open_postgresql(const std::string&) { throw std::runtime_error("this radiotower-notifier was built without PostgreSQL"); }
}  // namespace radiotower::notifier
