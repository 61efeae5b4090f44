# CROSS_HEADERS: a folder with the header libraries, reached through links, since /usr/include itself holds this machine's own C library.
find_path(HEADERS fmt/format.h PATHS /usr/include /usr/local/include NO_CMAKE_FIND_ROOT_PATH REQUIRED)
set(CROSS_HEADERS ${CMAKE_BINARY_DIR}/headers)
file(MAKE_DIRECTORY ${CROSS_HEADERS})
foreach(library fmt nlohmann toml++)
  file(CREATE_LINK ${HEADERS}/${library} ${CROSS_HEADERS}/${library} SYMBOLIC)
endforeach()
