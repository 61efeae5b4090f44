# Libraries at the edge, from the system's packages (./dryfit.sh and ./test.sh install them).
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
