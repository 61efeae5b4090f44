# Libraries at the edge, from the system's packages (./dryfit.sh and ./test.sh install them).
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
add_library(fmt_headers INTERFACE)
target_include_directories(fmt_headers SYSTEM INTERFACE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
add_library(dryfit_fmt OBJECT ${CMAKE_CURRENT_LIST_DIR}/fmt.cpp)
target_link_libraries(dryfit_fmt PRIVATE fmt_headers)
